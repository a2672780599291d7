-- Keys that another service encrypts layers' keys to, each for one image. The private half is sealed by a working key, and gone
-- with the import or with the next key that is made after its end.
CREATE TABLE import_key (
    -- RFC 7638 thumbprint of the public half.
    id          TEXT PRIMARY KEY NOT NULL,
    product     TEXT NOT NULL REFERENCES product (name),
    sealed      BLOB NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT;
