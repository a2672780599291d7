-- Products, what may open them, who may run them, and every decision.
-- Times are Unix milliseconds; documents are JSON text.

CREATE TABLE product (
    name        TEXT PRIMARY KEY NOT NULL,
    -- Rego source; NULL means the default policy.
    policy      TEXT,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE product_signer (
    product     TEXT NOT NULL REFERENCES product (name),
    thumbprint  TEXT NOT NULL,
    pem         TEXT NOT NULL,
    PRIMARY KEY (product, thumbprint)
) STRICT;

CREATE TABLE reference_value (
    product      TEXT NOT NULL REFERENCES product (name),
    measurement  TEXT NOT NULL,
    label        TEXT NOT NULL,
    source       TEXT NOT NULL,
    added_at     INTEGER NOT NULL,
    PRIMARY KEY (product, measurement)
) STRICT;

CREATE TABLE image_key (
    id          TEXT PRIMARY KEY NOT NULL,
    product     TEXT NOT NULL REFERENCES product (name),
    -- Sealed under the master key: 12-byte IV, ciphertext, tag.
    sealed      BLOB NOT NULL,
    image       TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE image_key_manifest (
    key_id           TEXT NOT NULL REFERENCES image_key (id),
    manifest_digest  TEXT NOT NULL,
    platform         TEXT NOT NULL,
    PRIMARY KEY (key_id, manifest_digest)
) STRICT;
CREATE INDEX image_key_manifest_by_digest ON image_key_manifest (manifest_digest);

CREATE TABLE license (
    id             TEXT PRIMARY KEY NOT NULL,
    customer       TEXT NOT NULL,
    -- issued, revoked; expiry is judged by the clock.
    state          TEXT NOT NULL,
    seats          INTEGER NOT NULL,
    lease_seconds  INTEGER NOT NULL,
    grace_seconds  INTEGER NOT NULL,
    claims         TEXT NOT NULL,
    issued_at      INTEGER NOT NULL,
    revoked_at     INTEGER,
    reason         TEXT
) STRICT;

CREATE TABLE lease (
    -- RFC 7638 thumbprint of the guest's ephemeral key.
    id                 TEXT PRIMARY KEY NOT NULL,
    license_id         TEXT NOT NULL REFERENCES license (id),
    product            TEXT NOT NULL REFERENCES product (name),
    manifest_digest    TEXT NOT NULL,
    chip_id            TEXT NOT NULL,
    simulated          INTEGER NOT NULL,
    started_at         INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    -- expires_at and the grace: until then the seat counts as taken.
    seat_until         INTEGER NOT NULL,
    -- When the newest challenge that was answered had been issued; an older answer is a replay.
    challenge_at       INTEGER NOT NULL,
    ended_at           INTEGER,
    end_reason         TEXT
) STRICT;
CREATE INDEX lease_by_license ON lease (license_id, seat_until);

CREATE TABLE api_token (
    id          TEXT PRIMARY KEY NOT NULL,
    -- SHA-256 of the token; the token itself is nowhere.
    hash        BLOB NOT NULL UNIQUE,
    label       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER
) STRICT;

CREATE TABLE audit_entry (
    sequence  INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL
) STRICT;
