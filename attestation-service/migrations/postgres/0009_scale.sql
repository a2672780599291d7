-- As in SQLite.
ALTER TABLE news ADD COLUMN rules BIGINT NOT NULL DEFAULT 0;
UPDATE news SET rules = (SELECT size FROM log_edge);

CREATE TABLE news_item (
    entry         BIGINT PRIMARY KEY,
    judged_again  BIGINT NOT NULL,
    lease         TEXT,
    license       TEXT,
    product       TEXT
);

CREATE TABLE seat (
    license_id  TEXT NOT NULL,
    chip_id     TEXT NOT NULL,
    taken       BIGINT NOT NULL CHECK (taken >= 0),
    PRIMARY KEY (license_id, chip_id)
);
INSERT INTO seat (license_id, chip_id, taken)
SELECT license_id, chip_id, count(*) FROM lease WHERE ended_at IS NULL AND seat_until > 0 GROUP BY license_id, chip_id;
INSERT INTO seat (license_id, chip_id, taken)
SELECT license_id, '', count(*) FROM lease WHERE ended_at IS NULL AND seat_until > 0 GROUP BY license_id;

DROP INDEX lease_by_license;
CREATE INDEX lease_seated ON lease (license_id, seat_until) WHERE ended_at IS NULL AND seat_until > 0;
CREATE INDEX lease_by_start ON lease (started_at DESC, id);

-- What is sealed does not compress.
ALTER TABLE lease_evidence ALTER COLUMN sealed SET STORAGE EXTERNAL;
