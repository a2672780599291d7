-- Tokens get a role and can be revoked; those from before are administrators. A name stands for one token for ever, since
-- the audit log names it.

CREATE TABLE api_token_new (
    id             TEXT PRIMARY KEY NOT NULL,
    -- SHA-256 of the token; the token itself is nowhere.
    hash           BLOB NOT NULL UNIQUE,
    name           TEXT NOT NULL UNIQUE,
    role           TEXT NOT NULL CHECK (role IN ('admin', 'publisher', 'licensing', 'auditor')),
    created_at     INTEGER NOT NULL,
    expires_at     INTEGER,
    revoked_at     INTEGER,
    revoke_reason  TEXT
) STRICT;

INSERT INTO api_token_new (id, hash, name, role, created_at, expires_at)
SELECT id, hash,
       CASE WHEN (SELECT count(*) FROM api_token AS other WHERE other.label = api_token.label) = 1 THEN label
            ELSE label || ' ' || id END,
       'admin', created_at, expires_at
FROM api_token;

DROP TABLE api_token;
ALTER TABLE api_token_new RENAME TO api_token;
