//! The switches of `sealift platform`.

use attestation_service::PlatformRule;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum PlatformCommand {
    /// Deny platforms: nothing starts on them any more, what runs there stops at its next renewal.
    Deny {
        /// Which: `Milan`, `Genoa`, `Turin` or `TDX`; a chip id, 128 hexadecimal digits; `csp:NAME`, a provider whose key
        /// signs; or a product whose reported TCB is below a level, as `Milan:snp<23,microcode<209` (any of bootloader, tee, snp, microcode, fmc).
        #[arg(value_name = "PRODUCT|CHIP|TCB|CSP")]
        rule: PlatformRule,
        /// Why; told to guests that are denied, and kept in the audit log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Only list the live leases that it would end.
        #[arg(long)]
        dry_run: bool,
    },
    /// Lift a denial; others may still concern the same platforms.
    Allow {
        /// The denial, as `sealift platform list` shows it.
        #[arg(value_name = "PRODUCT|CHIP|TCB|CSP")]
        rule: PlatformRule,
        /// Why; kept in the audit log.
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// List what is denied, oldest first.
    List,
}
