-- As in SQLite.
CREATE TABLE secret (
    product     TEXT NOT NULL REFERENCES product (name),
    kind        TEXT NOT NULL,
    tag         TEXT NOT NULL,
    sealed      BYTEA NOT NULL,
    bytes       BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    PRIMARY KEY (product, kind, tag)
);
