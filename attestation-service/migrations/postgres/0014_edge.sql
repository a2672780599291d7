-- As in SQLite.

-- Until when the guest may do without the service, under keys that it keeps sealed; 0: it may not.
ALTER TABLE lease ADD COLUMN offline_until BIGINT NOT NULL DEFAULT 0;

-- Requests that came by file and were answered.
CREATE TABLE renewal (
    -- SHA-256 of what the request's evidence binds.
    request   TEXT PRIMARY KEY NOT NULL,
    lease_id  TEXT NOT NULL REFERENCES lease (id),
    -- The entry of the last grant or renewal that the guest knew of.
    base      BIGINT NOT NULL,
    -- The entry of the answer.
    entry     BIGINT NOT NULL
);
CREATE INDEX renewal_by_lease ON renewal (lease_id, base);
