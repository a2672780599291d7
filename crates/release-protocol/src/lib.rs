//! What shim and service say to each other: types and codecs only.
