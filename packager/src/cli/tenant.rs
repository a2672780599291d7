//! The switches of `sealift tenant`.

use std::net::SocketAddr;

use attestation_service::{MasterKeyUri, SchemaName};
use clap::{Args, Subcommand};
use url::Url;

use crate::tenants::TenantName;

#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// Make a tenant: a home of its own below the vendor's, with keys, certificate authority, database and first admin token.
    /// Every command works on it by `--home`.
    Create(Box<TenantCreateArgs>),
    /// List tenants, and whether each is served.
    List {
        /// Those that were deleted, in the place of those that are there.
        #[arg(long)]
        deleted: bool,
    },
    /// Show where a tenant's things are.
    Show {
        /// Its name.
        name: TenantName,
    },
    /// Destroy a tenant's master keys, so that nothing of it opens again wherever copies are, then its tables and its home.
    /// Repeated after an interruption, it goes on.
    Delete {
        /// Its name.
        name: TenantName,
        /// Yes: there is no way back.
        #[arg(long, required = true)]
        yes: bool,
        /// The master keys that their stores do not let this program destroy are destroyed already. It is written down
        /// that the operator said so.
        #[arg(long)]
        key_destroyed: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TenantCreateArgs {
    /// Its name: 1 to 32 of `a-z`, `0-9` and `-`.
    pub(crate) name: TenantName,
    /// Where its service listens; tenants that are served together (`serve --tenants`) share it.
    #[arg(long, default_value = "127.0.0.1:8444", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// How its customers reach the service, by a host name that is no other tenant's. `https://NAME.localhost` and the port
    /// by default.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<Url>,
    /// How the vendor's own commands reach the service, where that is another way than the customers'.
    #[arg(long, value_name = "URL")]
    pub(crate) admin_url: Option<Url>,
    /// Keep its state in this PostgreSQL database, in a schema of its own; `SQLite` in its home by default. Its password comes
    /// from PGPASSWORD or PGPASSFILE.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// The schema; `tenant_NAME` by default. It is made where it is absent.
    #[arg(long, value_name = "SCHEMA", requires = "database")]
    pub(crate) schema: Option<SchemaName>,
    /// What its image keys and secrets are sealed under, as for `sealift init`; no other home's. A file in its home by
    /// default.
    #[arg(long, value_name = "KEY")]
    pub(crate) master_key: Option<MasterKeyUri>,
}
