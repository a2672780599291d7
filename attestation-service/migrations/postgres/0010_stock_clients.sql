-- As in SQLite.
ALTER TABLE reference_value DROP CONSTRAINT reference_value_kind_check;
ALTER TABLE reference_value ADD CONSTRAINT reference_value_kind_check
    CHECK (kind IN ('measurement', 'id-key', 'init-data'));

ALTER TABLE lease ADD COLUMN revocable BIGINT NOT NULL DEFAULT 1;
