//! The switches of `sealift secret`.

use clap::Subcommand;
use release_protocol::ProductName;

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Keep a secret, in the place of one of the same name. Guests get it as they get image keys, under a lease of the product.
    Put {
        /// The product whose guests get it.
        #[arg(long, value_name = "PRODUCT")]
        product: ProductName,
        /// `TYPE/TAG`: its address is `kbs:///PRODUCT/TYPE/TAG`.
        #[arg(value_name = "NAME")]
        name: String,
        /// What is in it, as it is: a file, `-` for stdin, `env://NAME`. At most 512 KiB.
        #[arg(value_name = "FROM")]
        from: String,
    },
    /// List a product's secrets, never what is in them.
    List {
        /// The product.
        #[arg(long, value_name = "PRODUCT")]
        product: ProductName,
    },
    /// Forget a secret. Guests that have it keep what they have.
    Remove {
        /// The product.
        #[arg(long, value_name = "PRODUCT")]
        product: ProductName,
        /// `TYPE/TAG`.
        #[arg(value_name = "NAME")]
        name: String,
    },
}
