-- What decisions rested on, so that it can be shown later.

-- The newest entry of the lease; each entry names the one before it.
ALTER TABLE lease ADD COLUMN last_entry INTEGER;

-- Of the grant and of the newest renewal: what the guest showed and what the policy was asked, sealed under the master key,
-- since licences are in it.
CREATE TABLE lease_evidence (
    lease_id  TEXT NOT NULL REFERENCES lease (id),
    entry     INTEGER NOT NULL,
    sealed    BLOB NOT NULL,
    PRIMARY KEY (lease_id, entry)
) STRICT;

-- Every policy that a product of its own has had.
CREATE TABLE policy_source (
    digest  TEXT PRIMARY KEY NOT NULL,
    source  TEXT NOT NULL
) STRICT;
