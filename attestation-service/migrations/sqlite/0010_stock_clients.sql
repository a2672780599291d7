-- Guests with clients that are not ours: what their launch says has to be approved, and nothing stops them.

CREATE TABLE reference_value_new (
    id             TEXT PRIMARY KEY NOT NULL,
    product        TEXT NOT NULL REFERENCES product (name),
    -- measurement: a launch digest; id-key: the digest of a key that signs ID blocks; init-data: the digest of initialisation
    -- data.
    kind           TEXT NOT NULL CHECK (kind IN ('measurement', 'id-key', 'init-data')),
    digest         TEXT NOT NULL,
    -- The lowest guest SVN under an ID key; 0 with all others.
    min_svn        INTEGER NOT NULL,
    label          TEXT NOT NULL,
    source         TEXT NOT NULL,
    added_at       INTEGER NOT NULL,
    -- From then on it does not count.
    retired_at     INTEGER,
    retire_reason  TEXT,
    UNIQUE (product, kind, digest, min_svn)
) STRICT;

INSERT INTO reference_value_new SELECT * FROM reference_value;
DROP TABLE reference_value;
ALTER TABLE reference_value_new RENAME TO reference_value;

-- 0: the workload runs on when the lease is lost.
ALTER TABLE lease ADD COLUMN revocable INTEGER NOT NULL DEFAULT 1;
