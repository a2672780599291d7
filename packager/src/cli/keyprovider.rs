//! The switches of the key provider.

use clap::Args;
use key_provider::ListenArgs;
use release_protocol::ProductName;

#[derive(Debug, Args)]
#[command(
    after_help = "Name it in the file that OCICRYPT_KEYPROVIDER_CONFIG names, by its program or by where it listens:\n  \
{\"key-providers\": {\"sealift\": {\"cmd\": {\n    \
\"path\": \"/usr/bin/sealift\", \"args\": [\"--home\", \"DIR\", \"keyprovider\"]}}}}\n  \
{\"key-providers\": {\"sealift\": {\"grpc\": \"127.0.0.1:50051\"}}}\n\
then encrypt, and finish what was encrypted:\n  \
skopeo copy --digestfile FILE --encryption-key provider:sealift:product=PRODUCT SRC DST\n  \
sealift pack --product PRODUCT --finish DST@$(cat FILE)\n\
Named `attestation-agent`, it makes images whose manifests `--finish` leaves as they are."
)]
pub(crate) struct KeyProviderArgs {
    /// The only product to wrap keys for; the one that the tool's parameter names by default.
    #[arg(long, value_name = "PRODUCT")]
    pub(crate) product: Option<ProductName>,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
}
