-- The bill of materials that stands beside a manifest: {"media_type", "digest", "manifest"}; NULL where there is none.
ALTER TABLE image_key_manifest ADD COLUMN sbom TEXT;
