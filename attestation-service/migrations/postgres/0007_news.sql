-- As in SQLite.
CREATE TABLE news (
    id            BIGINT PRIMARY KEY CHECK (id = 1),
    changed       BIGINT NOT NULL,
    judged_again  BIGINT NOT NULL
);
INSERT INTO news (id, changed, judged_again) SELECT 1, size, size FROM log_edge;
