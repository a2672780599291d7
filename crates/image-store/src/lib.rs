//! Where images live: registries, OCI layouts, archives; streams in and out, no keys.
