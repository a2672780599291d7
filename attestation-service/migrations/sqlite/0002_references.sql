-- Reference values get a name, may be an ID key with the lowest security version, and can be retired with a date.

CREATE TABLE reference_value_new (
    id             TEXT PRIMARY KEY NOT NULL,
    product        TEXT NOT NULL REFERENCES product (name),
    -- measurement: a launch digest; id-key: the digest of a key that signs ID blocks.
    kind           TEXT NOT NULL CHECK (kind IN ('measurement', 'id-key')),
    digest         TEXT NOT NULL,
    -- The lowest guest SVN under an ID key; 0 with a measurement.
    min_svn        INTEGER NOT NULL,
    label          TEXT NOT NULL,
    source         TEXT NOT NULL,
    added_at       INTEGER NOT NULL,
    -- From then on it does not count.
    retired_at     INTEGER,
    retire_reason  TEXT,
    UNIQUE (product, kind, digest, min_svn)
) STRICT;

INSERT INTO reference_value_new (id, product, kind, digest, min_svn, label, source, added_at)
SELECT 'ref-' || lower(hex(randomblob(16))), product, 'measurement', measurement, 0, label, source, added_at
FROM reference_value;

DROP TABLE reference_value;
ALTER TABLE reference_value_new RENAME TO reference_value;
