-- What makes the cost of a release independent of how many leases and entries there are.

-- The newest entry that changed what decisions rest on, but for licences that were just issued: see `store/rules.rs`.
ALTER TABLE news ADD COLUMN rules INTEGER NOT NULL DEFAULT 0;
UPDATE news SET rules = (SELECT size FROM log_edge);

-- What each entry that guests have to hear of is about: the first of lease, licence and product that is there, else all.
CREATE TABLE news_item (
    entry         INTEGER PRIMARY KEY NOT NULL,
    -- Whether leases have to be judged again, not only looked at.
    judged_again  INTEGER NOT NULL,
    lease         TEXT,
    license       TEXT,
    product       TEXT
) STRICT;

-- How many seats are taken, by licence and chip; the chip '' stands for all chips of the licence. A lease takes one from
-- its start until it ends or is seen to have lapsed.
CREATE TABLE seat (
    license_id  TEXT NOT NULL,
    chip_id     TEXT NOT NULL,
    taken       INTEGER NOT NULL CHECK (taken >= 0),
    PRIMARY KEY (license_id, chip_id)
) STRICT, WITHOUT ROWID;
INSERT INTO seat (license_id, chip_id, taken)
SELECT license_id, chip_id, count(*) FROM lease WHERE ended_at IS NULL AND seat_until > 0 GROUP BY license_id, chip_id;
INSERT INTO seat (license_id, chip_id, taken)
SELECT license_id, '', count(*) FROM lease WHERE ended_at IS NULL AND seat_until > 0 GROUP BY license_id;

DROP INDEX lease_by_license;
-- Those that take a seat.
CREATE INDEX lease_seated ON lease (license_id, seat_until) WHERE ended_at IS NULL AND seat_until > 0;
CREATE INDEX lease_by_start ON lease (started_at DESC, id);
