-- As in SQLite.
CREATE TABLE import_key (
    id          TEXT PRIMARY KEY NOT NULL,
    product     TEXT NOT NULL REFERENCES product (name),
    sealed      BYTEA NOT NULL,
    expires_at  BIGINT NOT NULL
);
