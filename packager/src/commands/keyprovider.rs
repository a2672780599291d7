//! `keyprovider`: wraps the layer keys of skopeo, buildah and podman, one call a layer. The keys stay pending until
//! `pack --finish` has seen the manifest.

use std::io::Write as _;

use attestation_service::api::NewImageKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{ExitCode, Failure, FailureContext as _};
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::keyprovider::{Answer, PROVIDER, Request, WrapRequest};
use ocicrypt::packet::{BrokerPacket, Kid};
use release_protocol::{ProductName, ResourcePath};
use zeroize::Zeroizing;

use crate::cli::KeyProviderArgs;
use crate::client::AdminClient;
use crate::home::VendorHome;

pub(crate) async fn run(home: &VendorHome, args: KeyProviderArgs) -> Result<(), Failure> {
    let request =
        Request::read(std::io::stdin()).or_fail(ExitCode::BadInput, || "cannot answer the request".to_owned());
    let hint = format!("this program is run by skopeo, buildah or podman as the key provider `{PROVIDER}`");
    let answer = match request.map_err(|failure| failure.hint(hint))? {
        Request::Wrap(request) => wrap(home, args, request).await?,
        _ => {
            return Err(Failure::usage("the vendor's key provider wraps keys and opens none")
                .hint("images are opened by `sealift-shim` in a guest that attests"));
        }
    };
    std::io::stdout().write_all(answer.to_json().as_bytes()).or_fail(ExitCode::Other, || "cannot answer".to_owned())
}

/// A fresh key for every layer: calls know nothing of each other.
async fn wrap(home: &VendorHome, args: KeyProviderArgs, request: WrapRequest) -> Result<Answer, Failure> {
    let product = product(args.product, request.parameter.as_deref())?;
    let client = AdminClient::new(home)?;
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
    Ok(Answer::Wrapped(packet))
}

/// What the image of a pending key is called.
const PENDING: &str = "(pending)";

fn product(switch: Option<ProductName>, parameter: Option<&str>) -> Result<ProductName, Failure> {
    let named = parameter
        .map(|text| {
            let parsed = text.parse::<ProductName>();
            parsed.or_fail(ExitCode::Usage, || format!("the parameter {text:?} of the key provider names no product"))
        })
        .transpose()?;
    match (switch, named) {
        (Some(only), Some(named)) if only != named => {
            Err(Failure::usage(format!("this key provider wraps keys for {only}, not for {named}")))
        }
        (Some(product), _) | (None, Some(product)) => Ok(product),
        (None, None) => Err(Failure::usage("the key provider is told no product")
            .hint(format!("write `--encryption-key provider:{PROVIDER}:PRODUCT`"))),
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
        assert_eq!(product(Some(name("shop")), None).unwrap(), shop);
        assert_eq!(product(None, Some("shop")).unwrap(), shop);
        assert_eq!(product(Some(name("shop")), Some("shop")).unwrap(), shop);
        for (switch, parameter, words) in [
            (Some(name("shop")), Some("bank"), "wraps keys for shop, not for bank"),
            (None, Some("No Product"), "names no product"),
            (Some(name("shop")), Some(""), "names no product"),
            (None, None, "is told no product"),
        ] {
            let failure = product(switch, parameter).unwrap_err();
            assert!(failure.message.contains(words), "{}", failure.message);
        }
    }
}
