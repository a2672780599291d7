//! The switches of the key provider.

use clap::Args;
use release_protocol::ProductName;

#[derive(Debug, Args)]
#[command(after_help = "Name it `attestation-agent` in the file that OCICRYPT_KEYPROVIDER_CONFIG names:\n  \
{\"key-providers\": {\"attestation-agent\": {\"cmd\": {\n    \
\"path\": \"/usr/bin/sealift\", \"args\": [\"--home\", \"DIR\", \"keyprovider\"]}}}}\n\
then encrypt, and finish what was encrypted:\n  \
skopeo copy --digestfile FILE --encryption-key provider:attestation-agent:PRODUCT SRC DST\n  \
sealift pack --product PRODUCT --finish DST@$(cat FILE)")]
pub(crate) struct KeyProviderArgs {
    /// The only product to wrap keys for; the one that the tool's parameter names by default.
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) product: Option<ProductName>,
}
