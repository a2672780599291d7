//! `audit export --lease` and `audit verify` of what it made: all that one lease rests on, in one file.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use image_signature::find_signed_payloads;
use image_store::ImageReference;
use jose::signing::VerifyingKey;
use release_protocol::{BundledSignature, EvidenceBundle};
use serde_json::{Value, json};
use transparency_log::{VerifierKey, Witnesses};

use crate::cli::ExportArgs;
use crate::client::AdminClient;
use crate::evidence::bundle::{Believed, BundleError, Proven, moment, verify};
use crate::evidence::relayed::{ProvenRelayed, verify_relayed};
use crate::evidence::trust::Trust;
use crate::home::{VendorHome, write_new};

/// Writes the bundle of a lease to a new file.
pub(crate) async fn export(
    home: &VendorHome,
    args: &ExportArgs,
    lease: &str,
    console: &Console,
) -> Result<(), Failure> {
    let to = &args.to;
    let mut bundle: EvidenceBundle = AdminClient::new(home)?.get(&format!("/log/leases/{lease}")).await?;
    if !args.without_signatures && names_signers(&bundle) {
        let image = args.image.clone().map_or_else(|| packed_to(&bundle), Ok)?;
        add_signatures(&mut bundle, args, &image).await.map_err(|failure| match failure.hint {
            Some(_) => failure,
            None => failure.hint(ELSEWHERE),
        })?;
    }
    let text = serde_json::to_string_pretty(&bundle).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
    // Licences are in it.
    write_new(to, format!("{text}\n").as_bytes(), 0o600)?;
    let document = json!({"lease": lease, "file": to, "entries": bundle.entries.len()});
    console.result(&document, || format!("{}: {} entries of {lease}", to.display(), bundle.entries.len()));
    Ok(())
}

/// What helps where the image is not where it was packed to.
const ELSEWHERE: &str = "name the sealed image by `--image REF`, or leave its signatures out by `--without-signatures`";

/// Whether the guest says whose signatures it has verified; a stock client says nothing.
fn names_signers(bundle: &EvidenceBundle) -> bool {
    let mut workloads = bundle.attestations.iter().map(|attestation| &attestation.basis.policy_input["workload"]);
    workloads.any(|workload| workload["signers"].as_array().is_some_and(|signers| !signers.is_empty()))
}

/// The registry's image that was packed, as its key's registration has it.
fn packed_to(bundle: &EvidenceBundle) -> Result<ImageReference, Failure> {
    let image = bundle.attestations.first().and_then(|attestation| attestation.basis.policy_input["image"].as_str());
    let image = image.unwrap_or_default();
    // What was packed to a folder or a file has a name of this kind, which says nothing of where.
    if image.starts_with("localhost/") {
        return Err(Failure::bad_input(format!("the image `{image}` was not packed to a registry")).hint(ELSEWHERE));
    }
    format!("docker://{image}")
        .parse()
        .or_fail(ExitCode::BadInput, || format!("the image `{image}` of the lease cannot be read"))
        .map_err(|failure| failure.hint(ELSEWHERE))
}

/// Adds the signatures of those whom the guest named; they lie beside the image.
async fn add_signatures(bundle: &mut EvidenceBundle, args: &ExportArgs, image: &ImageReference) -> Result<(), Failure> {
    let workload = bundle.attestations.first().map(|attestation| &attestation.basis.policy_input["workload"]);
    let digest = workload.and_then(|workload| workload["manifest_digest"].as_str()).unwrap_or_default();
    let store = args.registry.open(image).await?;
    let found = find_signed_payloads(&store, digest)
        .await
        .or_fail(ExitCode::BadInput, || format!("cannot read the signatures of {digest} in `{image}`"))?;
    let keys: Vec<_> = bundle.signer_keys.iter().filter_map(|pem| VerifyingKey::from_spki_pem(pem).ok()).collect();
    bundle.signatures = found
        .into_iter()
        .filter(|signed| signed.signer(digest, &keys).is_some())
        .filter_map(|signed| {
            let signature = STANDARD.encode(&signed.signature);
            Some(BundledSignature { payload: String::from_utf8(signed.payload).ok()?, signature })
        })
        .collect();
    if bundle.signatures.is_empty() {
        return Err(Failure::bad_input(format!("`{image}` has no signature of {digest} by whom the guest named"))
            .hint("name the sealed image that the guest ran"));
    }
    Ok(())
}

/// By what a bundle is judged, from the command line or the home.
pub(crate) struct Keys<'a> {
    pub(crate) log: VerifierKey,
    pub(crate) license: VerifyingKey,
    pub(crate) witnesses: &'a Witnesses,
    /// Contents of files with roots; AMD's where there are none.
    pub(crate) roots: &'a [Vec<u8>],
}

/// Judges a bundle offline and says what it proves: one of the vendor's own, or with those of a relay's leases (`above`) one
/// that the relay gave.
pub(crate) fn check(
    name: &str,
    json: &[u8],
    above: &[PathBuf],
    keys: &Keys<'_>,
    console: &Console,
) -> Result<(), Failure> {
    let bundle = parse(name, json)?;
    let trust = Trust::new(keys.roots, None).map_err(Failure::bad_input)?;
    let believed = Believed { log: &keys.log, license: &keys.license, witnesses: keys.witnesses, trust: &trust };
    if above.is_empty() {
        let proven = verify(&bundle, &believed).map_err(|error| refused(name, &error))?;
        say(&bundle, &proven, None, trust.untrusted, console);
        return Ok(());
    }
    let above: Vec<EvidenceBundle> = above
        .iter()
        .map(|path| parse(&format!("`{}`", path.display()), &super::audit::read(path)?))
        .collect::<Result<_, _>>()?;
    let proven = verify_relayed(&bundle, &above, &believed).map_err(|error| refused(name, &error))?;
    say(&bundle, &proven.below, Some(&proven), trust.untrusted, console);
    Ok(())
}

fn parse(name: &str, json: &[u8]) -> Result<EvidenceBundle, Failure> {
    serde_json::from_slice(json).or_fail(ExitCode::BadInput, || format!("{name} is no evidence bundle"))
}

pub(super) fn refused(name: &str, error: &BundleError) -> Failure {
    let failure = Failure::verification(format!("{name} proves nothing")).caused_by(error);
    match error {
        BundleError::Key(_) => failure.hint(
            "name the vendor's keys by `--key` and `--license-key`, and of a lease that a relay gave the evidence of the \
             relay's own lease by `--relay`",
        ),
        BundleError::Evidence { .. } => failure.hint("evidence of a simulated platform needs its root: `--roots FILE`"),
        _ => failure,
    }
}

fn say(bundle: &EvidenceBundle, proven: &Proven, relayed: Option<&ProvenRelayed>, untrusted: bool, console: &Console) {
    let Proven { checkpoint, entries, decisions, simulated, signers, .. } = proven;
    let grant = entries.first().map(|entry| &entry.body);
    let of = |name: &str| grant.and_then(|body| body[name].as_str()).unwrap_or("?").to_owned();
    let document = json!({
        "lease": bundle.lease, "license": of("license"), "customer": of("customer"), "product": of("product"),
        "manifest_digest": of("manifest_digest"), "measurement": of("measurement"), "log": checkpoint.origin.as_str(),
        "size": checkpoint.size, "root": checkpoint.root, "decisions_judged_again": decisions, "simulated": simulated,
        "roots_given": untrusted, "image_signers": signers, "entries": entries,
        "under": relayed.map(|relayed| under(relayed).0),
    });
    console.result(&document, || {
        let mut lines = vec![
            format!("lease {} of licence {} ({})", bundle.lease, of("license"), of("customer")),
            format!("product {}, image {}", of("product"), of("manifest_digest")),
            format!("guest   {}", of("measurement")),
        ];
        lines.extend(relayed.into_iter().flat_map(|relayed| under(relayed).1));
        if *simulated {
            lines.push("SIMULATED: the evidence proves nothing about hardware".to_owned());
        } else if untrusted {
            lines.push("UNTRUSTED: the evidence was judged by the roots that were given".to_owned());
        }
        if let Some(relay) = &proven.relay {
            lines.push(format!("relay   {}, its seats go to guests of its own", relay.url));
        } else if signers.is_empty() {
            lines.push("image signatures are not in the bundle; the guest has verified them".to_owned());
        } else {
            lines.push(format!("image signed by {}", signers.join(", ")));
        }
        lines
            .extend(entries.iter().map(|entry| format!("{:>8}  {}  {}", entry.sequence, moment(entry.at), entry.kind)));
        lines.push(format!("{} entries in the {} of {}", entries.len(), checkpoint.size, checkpoint.origin));
        lines.push(format!("{decisions} decisions judged again: evidence, licence and policy hold"));
        lines.join("\n")
    });
}

/// Under which of the vendor's leases a relay gave a lease, as JSON and in lines.
fn under(relayed: &ProvenRelayed) -> (Value, Vec<String>) {
    let leases = relayed.above.iter().filter_map(|proven| Some((proven, proven.entries.first()?)));
    let (documents, lines): (Vec<Value>, Vec<String>) = leases
        .map(|(proven, grant)| {
            let of = |name: &str| grant.body[name].as_str().unwrap_or("?");
            let document = json!({
                "lease": of("lease"), "license": of("license"), "measurement": of("measurement"),
                "simulated": proven.simulated, "granted": grant.at, "log": proven.checkpoint.origin.as_str(),
            });
            let line = format!(
                "under   relay {}, guest {}, by lease {} of licence {} in {}",
                relayed.relay.url,
                of("measurement"),
                of("lease"),
                of("license"),
                proven.checkpoint.origin
            );
            (document, line)
        })
        .unzip();
    (json!({"relay": relayed.relay.url, "leases": documents}), lines)
}
