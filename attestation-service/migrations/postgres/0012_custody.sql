-- As in SQLite.
CREATE TABLE master_key (
    number      BIGINT PRIMARY KEY,
    name        TEXT NOT NULL,
    added_at    BIGINT NOT NULL,
    retired_at  BIGINT
);

CREATE TABLE working_key (
    number      BIGINT PRIMARY KEY,
    master      BIGINT NOT NULL REFERENCES master_key (number),
    sealed      BYTEA NOT NULL,
    made_at     BIGINT NOT NULL
);

ALTER TABLE image_key ADD COLUMN master BIGINT NOT NULL DEFAULT 1;
ALTER TABLE secret ADD COLUMN master BIGINT NOT NULL DEFAULT 1;
CREATE INDEX image_key_by_master ON image_key (master);
CREATE INDEX secret_by_master ON secret (master);
