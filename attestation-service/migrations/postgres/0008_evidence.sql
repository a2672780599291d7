-- As in SQLite.
ALTER TABLE lease ADD COLUMN last_entry BIGINT;

CREATE TABLE lease_evidence (
    lease_id  TEXT NOT NULL REFERENCES lease (id),
    entry     BIGINT NOT NULL,
    sealed    BYTEA NOT NULL,
    PRIMARY KEY (lease_id, entry)
);

CREATE TABLE policy_source (
    digest  TEXT PRIMARY KEY,
    source  TEXT NOT NULL
);
