-- The whole schema as SQLite's migrations 1 to 6 leave it; what its tables and columns mean stands there.
-- Times are Unix milliseconds; documents are JSON text, as in SQLite: one set of queries serves both.

CREATE TABLE product (
    name        TEXT PRIMARY KEY,
    policy      TEXT,
    created_at  BIGINT NOT NULL
);

CREATE TABLE product_signer (
    product     TEXT NOT NULL REFERENCES product (name),
    thumbprint  TEXT NOT NULL,
    pem         TEXT NOT NULL,
    PRIMARY KEY (product, thumbprint)
);

CREATE TABLE reference_value (
    id             TEXT PRIMARY KEY,
    product        TEXT NOT NULL REFERENCES product (name),
    kind           TEXT NOT NULL CHECK (kind IN ('measurement', 'id-key')),
    digest         TEXT NOT NULL,
    min_svn        BIGINT NOT NULL,
    label          TEXT NOT NULL,
    source         TEXT NOT NULL,
    added_at       BIGINT NOT NULL,
    retired_at     BIGINT,
    retire_reason  TEXT,
    UNIQUE (product, kind, digest, min_svn)
);

CREATE TABLE image_key (
    id          TEXT PRIMARY KEY,
    product     TEXT NOT NULL REFERENCES product (name),
    sealed      BYTEA NOT NULL,
    image       TEXT NOT NULL,
    created_at  BIGINT NOT NULL
);

CREATE TABLE image_key_manifest (
    key_id           TEXT NOT NULL REFERENCES image_key (id),
    manifest_digest  TEXT NOT NULL,
    platform         TEXT NOT NULL,
    PRIMARY KEY (key_id, manifest_digest)
);
CREATE INDEX image_key_manifest_by_digest ON image_key_manifest (manifest_digest);

CREATE TABLE license (
    id             TEXT PRIMARY KEY,
    customer       TEXT NOT NULL,
    state          TEXT NOT NULL,
    seats          BIGINT NOT NULL,
    lease_seconds  BIGINT NOT NULL,
    grace_seconds  BIGINT NOT NULL,
    claims         TEXT NOT NULL,
    issued_at      BIGINT NOT NULL,
    revoked_at     BIGINT,
    reason         TEXT,
    activated_at   BIGINT,
    suspended_at   BIGINT,
    drain_until    BIGINT,
    generation     BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE lease (
    id               TEXT PRIMARY KEY,
    license_id       TEXT NOT NULL REFERENCES license (id),
    product          TEXT NOT NULL REFERENCES product (name),
    manifest_digest  TEXT NOT NULL,
    chip_id          TEXT NOT NULL,
    simulated        BIGINT NOT NULL,
    started_at       BIGINT NOT NULL,
    expires_at       BIGINT NOT NULL,
    seat_until       BIGINT NOT NULL,
    challenge_at     BIGINT NOT NULL,
    ended_at         BIGINT,
    end_reason       TEXT,
    platform         TEXT,
    entry            BIGINT
);
CREATE INDEX lease_by_license ON lease (license_id, seat_until);

CREATE TABLE platform_denial (
    rule       TEXT PRIMARY KEY,
    reason     TEXT NOT NULL,
    denied_at  BIGINT NOT NULL
);

CREATE TABLE api_token (
    id             TEXT PRIMARY KEY,
    hash           BYTEA NOT NULL UNIQUE,
    name           TEXT NOT NULL UNIQUE,
    role           TEXT NOT NULL CHECK (role IN ('admin', 'publisher', 'licensing', 'auditor')),
    created_at     BIGINT NOT NULL,
    expires_at     BIGINT,
    revoked_at     BIGINT,
    revoke_reason  TEXT
);

CREATE TABLE audit_entry (
    sequence  BIGINT PRIMARY KEY,
    at        BIGINT NOT NULL,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL,
    salt      TEXT NOT NULL
);

CREATE TABLE log_node (
    level  BIGINT NOT NULL,
    idx    BIGINT NOT NULL,
    hash   BYTEA NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (level, idx)
);

-- Its lock is the write lock: see the store's module.
CREATE TABLE log_edge (
    id    BIGINT PRIMARY KEY CHECK (id = 1),
    size  BIGINT NOT NULL,
    edge  BYTEA NOT NULL
);
INSERT INTO log_edge (id, size, edge) VALUES (1, 0, '');

CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% stays', CASE TG_TABLE_NAME WHEN 'log_node' THEN 'a hash of the log' ELSE 'an audit entry' END;
END $$;
CREATE TRIGGER audit_entry_stays BEFORE UPDATE OR DELETE ON audit_entry FOR EACH ROW EXECUTE FUNCTION stays();
CREATE TRIGGER audit_entry_remains BEFORE TRUNCATE ON audit_entry FOR EACH STATEMENT EXECUTE FUNCTION stays();
CREATE TRIGGER log_node_stays BEFORE UPDATE OR DELETE ON log_node FOR EACH ROW EXECUTE FUNCTION stays();
CREATE TRIGGER log_node_remains BEFORE TRUNCATE ON log_node FOR EACH STATEMENT EXECUTE FUNCTION stays();
