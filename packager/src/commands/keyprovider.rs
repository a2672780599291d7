//! `keyprovider`: wraps the layer keys of skopeo, buildah and podman, one call a layer. The keys stay pending until
//! `pack --finish` has seen the manifest.

use attestation_service::api::NewImageKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use key_provider::KeyProvider;
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::keyprovider::{OWN_PROVIDER, UnwrapRequest, WrapRequest};
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::{BrokerPacket, Kid};
use release_protocol::{ProductName, ResourcePath};
use zeroize::Zeroizing;

use crate::cli::KeyProviderArgs;
use crate::client::AdminClient;
use crate::home::VendorHome;

pub(crate) async fn run(home: VendorHome, args: KeyProviderArgs, console: &Console) -> Result<(), Failure> {
    let address = args.listen.address()?;
    let provider = VendorProvider { home, only: args.product };
    match address {
        None => key_provider::answer_once(&provider).await,
        Some(address) => {
            // Mistakes of the home show at the start, not at the first layer.
            AdminClient::new(&provider.home)?;
            key_provider::serve(provider, address, console).await
        }
    }
}

/// Wraps keys for the home's service.
struct VendorProvider {
    home: VendorHome,
    /// The one product that keys are wrapped for, where there is one.
    only: Option<ProductName>,
}

impl KeyProvider for VendorProvider {
    /// A fresh key for every layer: calls know nothing of each other.
    async fn wrap(&self, request: WrapRequest) -> Result<BrokerPacket, Failure> {
        let product = product(self.only.as_ref(), request.parameter.as_deref())?;
        let client = AdminClient::new(&self.home)?;
        let id = uuid::Uuid::now_v7().to_string();
        let kid = Kid::new(&client.key_authority()?, [product.as_str(), ResourcePath::IMAGE_KEY, &id])
            .or_fail(ExitCode::BadInput, || "cannot name the image key".to_owned())?;
        let kek = KeyEncryptionKey::generate().or_fail(ExitCode::Other, || "cannot make a key".to_owned())?;
        let packet = BrokerPacket::seal(&kid, &kek, &request.private)
            .or_fail(ExitCode::Other, || "cannot wrap the layer's key".to_owned())?;
        let registration = NewImageKey {
            id,
            kek: Zeroizing::new(STANDARD.encode(kek.expose())),
            image: PENDING.to_owned(),
            manifests: Vec::new(),
        };
        client.submit(&format!("/products/{product}/keys"), &registration).await?;
        Ok(packet)
    }

    async fn unwrap(&self, _: UnwrapRequest) -> Result<PrivateOptions, Failure> {
        Err(Failure::usage("the vendor's key provider wraps keys and opens none")
            .hint("images are opened by `sealift-shim` in a guest that attests"))
    }
}

/// What the image of a pending key is called.
const PENDING: &str = "(pending)";

/// The product that a key is for: the parameter is `PRODUCT` or `product=PRODUCT`.
fn product(only: Option<&ProductName>, parameter: Option<&str>) -> Result<ProductName, Failure> {
    let named = parameter
        .map(|text| {
            let parsed = text.strip_prefix("product=").unwrap_or(text).parse::<ProductName>();
            parsed.or_fail(ExitCode::Usage, || format!("the parameter {text:?} of the key provider names no product"))
        })
        .transpose()?;
    match (only, named) {
        (Some(only), Some(named)) if *only != named => {
            Err(Failure::usage(format!("this key provider wraps keys for {only}, not for {named}")))
        }
        (Some(product), _) => Ok(product.clone()),
        (None, Some(product)) => Ok(product),
        (None, None) => Err(Failure::usage("the key provider is told no product")
            .hint(format!("write `--encryption-key provider:{OWN_PROVIDER}:product=PRODUCT`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ProductName {
        text.parse().unwrap()
    }

    #[test]
    fn the_product_is_the_parameters_or_the_switchs_and_they_do_not_differ() {
        let shop = name("shop");
        assert_eq!(product(Some(&shop), None).unwrap(), shop);
        for parameter in ["shop", "product=shop"] {
            assert_eq!(product(None, Some(parameter)).unwrap(), shop);
            assert_eq!(product(Some(&shop), Some(parameter)).unwrap(), shop);
        }
        for (switch, parameter, words) in [
            (Some(&shop), Some("product=bank"), "wraps keys for shop, not for bank"),
            (None, Some("No Product"), "names no product"),
            (Some(&shop), Some(""), "names no product"),
            (None, Some("product="), "names no product"),
            (None, Some("licence=shop"), "names no product"),
            (None, None, "is told no product"),
        ] {
            let failure = product(switch, parameter).unwrap_err();
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }
}
