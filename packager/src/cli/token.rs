//! The switches of `sealift token`.

use std::path::PathBuf;

use attestation_service::api::Role;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it, this once; the service keeps its hash alone.
    Create {
        /// By what it is listed, audited and revoked: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`.
        #[arg(long, value_name = "NAME")]
        name: String,
        /// What it is for: `admin` (everything), `publisher` (products, reference values, keys, policies, platforms), `licensing`
        /// (licences, leases), `auditor` (reads all, changes nothing).
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// Until when it is good (RFC 3339), or for how long (`90d`); until it is revoked by default.
        #[arg(long, value_name = "TIME|DURATION")]
        expires: Option<String>,
        /// Write it to this new file instead (mode 0600), for `SEALIFT_TOKEN_FILE`.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// List tokens: names and roles, never the tokens themselves.
    List,
    /// Revoke a token, at once and for ever.
    Revoke {
        /// Its name.
        name: String,
        /// Why; kept in the audit log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}
