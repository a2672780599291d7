-- Master keys that this database has known. The newest seals what is new; while another one is not retired, what is under it
-- is being sealed anew.
CREATE TABLE master_key (
    number      INTEGER PRIMARY KEY NOT NULL,
    -- Which key it is, not how it is reached.
    name        TEXT NOT NULL,
    added_at    INTEGER NOT NULL,
    -- When nothing was under it any more.
    retired_at  INTEGER
) STRICT;

-- What seals what is sealed often, each sealed under a master key.
CREATE TABLE working_key (
    number      INTEGER PRIMARY KEY NOT NULL,
    master      INTEGER NOT NULL REFERENCES master_key (number),
    sealed      BLOB NOT NULL,
    made_at     INTEGER NOT NULL
) STRICT;

-- The first master key is the one that there was before others were known.
ALTER TABLE image_key ADD COLUMN master INTEGER NOT NULL DEFAULT 1;
ALTER TABLE secret ADD COLUMN master INTEGER NOT NULL DEFAULT 1;
CREATE INDEX image_key_by_master ON image_key (master);
CREATE INDEX secret_by_master ON secret (master);
