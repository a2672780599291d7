-- The audit log becomes a Merkle tree: entry N is leaf N - 1. The hashes of the entries that there are already are made
-- when the service opens the database.

-- Random, and part of the leaf: the hash of an entry next to one's own tells nothing about it, however well it is guessed.
ALTER TABLE audit_entry ADD COLUMN salt TEXT NOT NULL DEFAULT '';
UPDATE audit_entry SET salt = lower(hex(randomblob(16)));

-- The hashes of all complete subtrees: `idx` counts them from 0 at each level, level 0 are the leaves.
CREATE TABLE log_node (
    level  INTEGER NOT NULL,
    idx    INTEGER NOT NULL,
    hash   BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, idx)
) STRICT, WITHOUT ROWID;

-- The right edge: the hashes that the root is made of, which is all that appending needs.
CREATE TABLE log_edge (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    size  INTEGER NOT NULL,
    edge  BLOB NOT NULL
) STRICT;
INSERT INTO log_edge (id, size, edge) VALUES (1, 0, x'');

-- The entry of a lease's grant or newest renewal, for its receipt.
ALTER TABLE lease ADD COLUMN entry INTEGER;

-- No statement of ours changes what was written; one that would is a mistake.
CREATE TRIGGER audit_entry_stays BEFORE UPDATE ON audit_entry BEGIN SELECT RAISE(ABORT, 'an audit entry stays'); END;
CREATE TRIGGER audit_entry_remains BEFORE DELETE ON audit_entry BEGIN SELECT RAISE(ABORT, 'an audit entry stays'); END;
CREATE TRIGGER log_node_stays BEFORE UPDATE ON log_node BEGIN SELECT RAISE(ABORT, 'a hash of the log stays'); END;
CREATE TRIGGER log_node_remains BEFORE DELETE ON log_node BEGIN SELECT RAISE(ABORT, 'a hash of the log stays'); END;
