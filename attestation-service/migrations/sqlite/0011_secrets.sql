-- What guests get beside image keys: configuration, keys of models. Sealed under the master key, bound to product, type and tag.
CREATE TABLE secret (
    product     TEXT NOT NULL REFERENCES product (name),
    kind        TEXT NOT NULL,
    tag         TEXT NOT NULL,
    sealed      BLOB NOT NULL,
    -- Of the secret itself.
    bytes       INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    PRIMARY KEY (product, kind, tag)
) STRICT;
