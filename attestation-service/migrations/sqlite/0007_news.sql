-- The newest entries of the log after which leases may have ended (`changed`), or have to be judged again (`judged_again`).
CREATE TABLE news (
    id            INTEGER PRIMARY KEY CHECK (id = 1),
    changed       INTEGER NOT NULL,
    judged_again  INTEGER NOT NULL
) STRICT;
INSERT INTO news (id, changed, judged_again) SELECT 1, size, size FROM log_edge;
