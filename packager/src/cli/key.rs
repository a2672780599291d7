//! The switches of `sealift key`.

use clap::Subcommand;
use release_protocol::ProductName;

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// List a product's image keys and the master key that each is sealed under, never the keys themselves.
    List {
        /// The product.
        #[arg(long, value_name = "PRODUCT")]
        product: ProductName,
    },
    /// Show the master keys, how much is sealed under each, and how far a rotation is.
    Status,
    /// Make another key the master key. New keys come under it at once; all others are sealed anew in the background, while
    /// the service goes on.
    Rotate {
        /// The new master key: `file:PATH`, `env://NAME`, `pkcs11:…`, `openbao://[MOUNT/]KEY`, `vault://[MOUNT/]KEY`. By
        /// default the newest version of the same Transit key, or a new file in the home of a service without replicas.
        #[arg(long, value_name = "KEY")]
        to: Option<String>,
        /// Wait until all is under it.
        #[arg(long)]
        wait: bool,
    },
}
