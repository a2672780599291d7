//! Images whose keys a Trustee key broker holds (Confidential Containers): the same packets, the same protocol, but no licence and
//! no lease. Who may open them is that broker's policy; that the image is whole and whose it is, its signature says.

use std::path::PathBuf;
use std::sync::Arc;

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jose::signing::VerifyingKey;
use launch_evidence::Attester;
use ocicrypt::cipher::KeyEncryptionKey;
use release_protocol::{Obligations, ResourcePath};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::attester;
use crate::cli::{BrokerArgs, ImageArgs};
use crate::image::SignedImage;
use crate::kbs::{Refused, ServiceClient};
use crate::session::{Held, Released, Session};

/// What the broker gave after an attestation: good for resources while it lives.
pub(crate) struct TrusteeToken {
    client: ServiceClient,
    token: String,
}

impl TrusteeToken {
    async fn get(client: ServiceClient, attester: &Arc<dyn Attester>) -> Result<Self, Refused> {
        let challenge = client.challenge(attester).await?;
        let attested = client.attest(attester, challenge, None, None).await?;
        Ok(Self { client, token: attested.answer.token })
    }

    /// Fetches a resource.
    pub(crate) async fn secret(&self, path: &ResourcePath) -> Result<Zeroizing<Vec<u8>>, Refused> {
        self.client.fetch_secret(&self.token, path).await
    }

    async fn keys(&self, paths: &[ResourcePath]) -> Result<Vec<KeyEncryptionKey>, Refused> {
        let mut keys = Vec::with_capacity(paths.len());
        for path in paths {
            keys.push(self.client.fetch_key(&self.token, path).await?);
        }
        Ok(keys)
    }
}

/// Verifies the image by the signers given, attests, and receives its keys. No layer has been requested when this returns.
pub(crate) async fn open(args: &ImageArgs, command_args: &[String], console: &Console) -> Result<Session, Failure> {
    let broker = &args.broker;
    let signers = broker.signer.iter().map(signer).collect::<Result<Vec<_>, _>>()?;
    let client = client(broker)?.with_init_data(args.opening.init_data.as_deref())?;
    let store = args.opening.registry.open(&args.reference).await?;
    let image = SignedImage::open(&store, &signers, args.opening.platform.as_deref()).await?;
    let command = image.command(command_args);
    let attester = attester::open(console)?;
    let key_paths = image.key_paths()?;
    let Some(product) = key_paths.first().map(|path| path.product.clone()) else {
        return Err(Failure::verification("the image has no layer that is sealed to a key broker"));
    };
    let token = TrusteeToken::get(client, &attester).await.map_err(Refused::into_failure)?;
    let layer_keys = image.unwrap(&token.keys(&key_paths).await.map_err(Refused::into_failure)?)?;
    let simulated = if attester.is_simulated() { " (SIMULATED platform)" } else { "" };
    console.say(format!(
        "attested{simulated} to a Trustee key broker; no lease: nobody can stop the workload from afar once it runs"
    ));
    let obligations = Obligations::default();
    let released = Released { store, image, layer_keys, command, product, obligations };
    Ok(Session { released, held: Held::Token(Box::new(token)) })
}

fn client(broker: &BrokerArgs) -> Result<ServiceClient, Failure> {
    let Some(url) = broker.kbs_url.clone() else {
        return Err(Failure::usage("the key broker's address is missing").hint("name it by `--kbs-url`"));
    };
    let authority = match &broker.kbs_ca {
        Some(file) => Some(authority(file)?),
        None if url.scheme() == "http" && is_loopback(&url) => None,
        None => {
            return Err(Failure::usage(format!("nothing says whose certificate `{url}` may show"))
                .hint("name the key broker's certificate authority by `--kbs-ca`; plain http is for loopback alone"));
        }
    };
    ServiceClient::at(url, authority, "the authority in `--kbs-ca`")
}

fn authority(file: &PathBuf) -> Result<reqwest::Certificate, Failure> {
    let cannot = || format!("cannot use the certificate authority `{}`", file.display());
    let pem = std::fs::read(file).or_fail(ExitCode::BadInput, cannot)?;
    reqwest::Certificate::from_pem(&pem).or_fail(ExitCode::BadInput, cannot)
}

fn signer(file: &PathBuf) -> Result<VerifyingKey, Failure> {
    let cannot = || format!("`{}` is no public key of a signer", file.display());
    let pem = std::fs::read_to_string(file).or_fail(ExitCode::BadInput, cannot)?;
    VerifyingKey::from_spki_pem(&pem).or_fail(ExitCode::BadInput, cannot)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
