//! `keyprovider`: gives skopeo, buildah, podman and CRI-O the keys of layers. Where the keys come from is not here.

use command_line::{Console, Failure};
use key_provider::KeyProvider;
use ocicrypt::keyprovider::{UnwrapRequest, WrapRequest};
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::BrokerPacket;

use crate::cli::KeyProviderArgs;
use crate::layer_key::LayerKeys;

pub(crate) async fn run(args: KeyProviderArgs, console: Console) -> Result<(), Failure> {
    let address = args.listen.address()?.cloned();
    let provider = GuestProvider(LayerKeys::new(args.keys, console));
    match address {
        None => key_provider::answer_once(&provider).await,
        Some(address) => key_provider::serve(provider, &address, &console).await,
    }
}

struct GuestProvider(LayerKeys);

impl KeyProvider for GuestProvider {
    async fn wrap(&self, _: WrapRequest) -> Result<BrokerPacket, Failure> {
        Err(Failure::usage("the customer's key provider opens keys and wraps none")
            .hint("images are encrypted with `sealift keyprovider`"))
    }

    async fn unwrap(&self, request: UnwrapRequest) -> Result<PrivateOptions, Failure> {
        // The protocol names no image.
        self.0.open(request.packet, None).await
    }
}
