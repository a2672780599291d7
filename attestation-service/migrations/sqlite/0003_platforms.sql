-- Platforms that the vendor denies, and what leases say of theirs.

CREATE TABLE platform_denial (
    -- PRODUCT, CHIP, or PRODUCT:COMPONENT<N[,…], in its one spelling.
    rule       TEXT PRIMARY KEY NOT NULL,
    reason     TEXT NOT NULL,
    denied_at  INTEGER NOT NULL
) STRICT;

-- {"product", "reported_tcb"} by the newest evidence; NULL where the lease has not been renewed since this was added.
ALTER TABLE lease ADD COLUMN platform TEXT;
