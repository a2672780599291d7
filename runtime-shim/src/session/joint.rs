//! One image of several partners, each of whom has sealed layers to a service of its own: all are attested to at once, and
//! nothing is decrypted unless all agree. Each service is shown its own licence and asked for its own keys only.

use std::path::PathBuf;
use std::sync::Arc;

use command_line::{Console, Failure};
use futures_util::future::{join_all, select_all};
use held_lease::BootTime;
use jose::signing::VerifyingKey;
use launch_evidence::Attester;
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::packet::Kid;
use release_protocol::{License, LicenseFile, Obligations, ProductName, ResourcePath, Workload};
use zeroize::Zeroizing;

use super::{Held, LeaseHolder, Released, Session, check_obligations, hold};
use crate::cli::{ImageArgs, OpeningArgs};
use crate::image::{SignedImage, key_path, no_sealed_layer};
use crate::kbs::Refused;
use crate::supervise::{Deadlines, keep_lease};
use crate::{attester, license};

/// The leases of all partners.
pub(crate) struct Joint(Vec<Member>);

/// One partner's lease.
struct Member {
    partner: Partner,
    holder: LeaseHolder,
}

/// A partner, as its licence has it.
struct Partner {
    /// For a reader: service, products, licence.
    name: String,
    license: LicenseFile,
    /// `HOST[:PORT]` of its service, as key ids have it.
    authority: String,
    signers: Vec<VerifyingKey>,
    /// The keys of its layers.
    keys: Vec<ResourcePath>,
}

/// Verifies the image, attests to every partner's service, and receives the keys. No layer has been requested when this
/// returns; where one partner refuses, what the others granted has been given back.
pub(super) async fn open(
    args: &ImageArgs,
    licenses: &[PathBuf],
    command_args: &[String],
    console: &Console,
) -> Result<Session, Failure> {
    let mut partners =
        licenses.iter().map(|file| Partner::read(license::read(file)?)).collect::<Result<Vec<_>, _>>()?;
    refuse_ambiguous(&partners)?;
    let store = args.opening.registry.open(&args.reference).await?;
    let image = SignedImage::open(&store, &all_signers(&partners), args.opening.platform.as_deref()).await?;
    assign_keys(&image, &mut partners)?;
    for partner in &partners {
        partner.demand_signature(&image.signers)?;
    }
    let command = image.command(command_args);
    let product = partners.iter().find_map(|partner| partner.keys.first()).map(|path| path.product.clone());
    let product = product.ok_or_else(no_sealed_layer)?;
    let attester = attester::open(console)?;
    let (joint, obligations) = attest(partners, &image.workload(command.clone()), &attester, &args.opening).await?;
    let received = async {
        joint.check(&obligations)?;
        let keys = joint.fetch_keys().await?;
        image.unwrap_by_name(|kid| joint.key(&keys, kid))
    };
    let layer_keys = match received.await {
        Ok(layer_keys) => layer_keys,
        Err(failure) => {
            joint.release().await;
            return Err(failure);
        }
    };
    let simulated = if attester.is_simulated() { " (SIMULATED platform)" } else { "" };
    for Member { partner, holder } in &joint.0 {
        console.say(format!("attested{simulated} to {}; holding lease {}", partner.name, holder.lease.id));
    }
    let released = Released { store, image, layer_keys, command, product, obligations: merged(&obligations) };
    Ok(Session { released, held: Held::Joint(joint) })
}

impl Partner {
    fn read(license: LicenseFile) -> Result<Self, Failure> {
        let claims = license.unverified();
        let name = name(claims);
        let authority = authority(claims).ok_or_else(|| Failure::bad_input(format!("{name} names no host")))?;
        let signers = license::signers(claims).map_err(|failure| blame(&name, failure))?;
        Ok(Self { name, authority, signers, license, keys: Vec::new() })
    }

    fn products(&self) -> &[ProductName] {
        &self.license.unverified().products
    }

    /// Whether a layer's key is one of its service's, for a product of its licence.
    fn owns(&self, kid: &Kid) -> bool {
        let [product, ..] = kid.parts();
        kid.authority() == self.authority && self.products().iter().any(|own| own.as_str() == product)
    }

    /// What its service's log is called.
    fn log(&self) -> Option<String> {
        self.license.unverified().service.log_key.as_ref().map(|key| key.name().to_string())
    }

    /// The same, with receipts in a directory of the partner's own where its log goes by another one's name, as on one host.
    fn opening(&self, opening: &OpeningArgs, logs: &[String]) -> OpeningArgs {
        let mut opening = opening.clone();
        let namesakes = logs.iter().filter(|log| self.log().as_ref() == Some(log)).count();
        if let Some(receipts) = opening.receipts.as_mut().filter(|_| namesakes > 1) {
            receipts.push(directory_of(&self.authority));
        }
        opening
    }

    fn demand_signature(&self, signed_by: &[String]) -> Result<(), Failure> {
        if self.signers.iter().any(|key| signed_by.contains(&key.thumbprint())) {
            return Ok(());
        }
        Err(Failure::verification(format!("the image is signed by none of the keys that {} names", self.name))
            .hint("`sealift cosign status` shows whose signature is missing"))
    }
}

/// The partner for a reader: who it is and what the customer has of it.
fn name(claims: &License) -> String {
    let products = claims.products.iter().map(ProductName::as_str).collect::<Vec<_>>().join(", ");
    format!("the partner at {} (product {products}, licence {})", claims.service.url, claims.id)
}

/// As `sealift pack` writes it into key ids.
fn authority(claims: &License) -> Option<String> {
    let url = &claims.service.url;
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

/// The name of a partner's directory. A licence that names `..` as its host leads nowhere else.
fn directory_of(authority: &str) -> String {
    let name = authority.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    if name.starts_with('.') { format!("-{name}") } else { name }
}

/// Says of whom a failure is.
fn blame(name: &str, failure: Failure) -> Failure {
    Failure { message: format!("{name}: {}", failure.message), ..failure }
}

/// One licence for one partner's layers: which of two is meant is nobody's to guess.
fn refuse_ambiguous(partners: &[Partner]) -> Result<(), Failure> {
    for (position, partner) in partners.iter().enumerate() {
        let same = |other: &&Partner| {
            other.authority == partner.authority
                && other.products().iter().any(|product| partner.products().contains(product))
        };
        if let Some(other) = partners.iter().take(position).find(same) {
            return Err(Failure::usage("two licences are of the same service and product")
                .cause(partner.name.clone())
                .cause(other.name.clone())
                .hint("name one licence of each partner"));
        }
    }
    Ok(())
}

fn all_signers(partners: &[Partner]) -> Vec<VerifyingKey> {
    let mut keys: Vec<VerifyingKey> = Vec::new();
    for key in partners.iter().flat_map(|partner| &partner.signers) {
        if keys.iter().all(|known| known.thumbprint() != key.thumbprint()) {
            keys.push(key.clone());
        }
    }
    keys
}

/// Gives each partner the keys of its layers. Every sealed layer is some partner's, and every partner has one.
fn assign_keys(image: &SignedImage, partners: &mut [Partner]) -> Result<(), Failure> {
    for (position, layer) in image.layers.iter().enumerate() {
        let kids = layer.kids()?;
        let mut is_assigned = kids.is_empty();
        for kid in &kids {
            let Some(partner) = partners.iter_mut().find(|partner| partner.owns(kid)) else { continue };
            is_assigned = true;
            let path = key_path(kid)?;
            if !partner.keys.contains(&path) {
                partner.keys.push(path);
            }
        }
        if !is_assigned {
            let services: Vec<String> =
                kids.iter().map(|kid| format!("https://{} (product {})", kid.authority(), kid.parts()[0])).collect();
            return Err(Failure::denied(format!(
                "layer {position} is sealed by the partner at {}, and none of the licences is of it",
                services.join(" or ")
            ))
            .hint("ask that partner for a licence, and name it, too: `--license` once for each partner"));
        }
    }
    if let Some(partner) = partners.iter().find(|partner| partner.keys.is_empty()) {
        return Err(Failure::bad_input(format!("no layer of the image is sealed by {}", partner.name))
            .hint("name the licences of those who have sealed it; `sealift inspect` shows their services"));
    }
    Ok(())
}

/// Has all services asked at the same time. Where one refuses, the others get their leases back.
async fn attest(
    partners: Vec<Partner>,
    workload: &Workload,
    attester: &Arc<dyn Attester>,
    opening: &OpeningArgs,
) -> Result<(Joint, Vec<Obligations>), Failure> {
    let logs: Vec<String> = partners.iter().filter_map(Partner::log).collect();
    let logs = &logs;
    let asked = partners.into_iter().map(|partner| async move {
        let opening = partner.opening(opening, logs);
        let held = hold(partner.license.clone(), workload.clone(), Arc::clone(attester), &opening).await;
        match held {
            Ok((holder, obligations)) => Ok((Member { partner, holder }, obligations)),
            Err(failure) => Err(blame(&partner.name, failure)),
        }
    });
    let (mut members, mut obligations, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    for answer in join_all(asked).await {
        match answer {
            Ok((member, duties)) => {
                members.push(member);
                obligations.push(duties);
            }
            Err(failure) => failures.push(failure),
        }
    }
    let joint = Joint(members);
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else { return Ok((joint, obligations)) };
    joint.release().await;
    Err(failures.fold(first, |first, other| first.cause(format!("also {}", other.message))))
}

/// What binds the workload: whatever any of them demands.
fn merged(obligations: &[Obligations]) -> Obligations {
    let read_only_root = obligations.iter().any(|duties| duties.read_only_root);
    // Digest, signers and command were each compared with what runs.
    Obligations { read_only_root, ..Obligations::default() }
}

impl Joint {
    /// Whether every partner's obligations are kept.
    fn check(&self, obligations: &[Obligations]) -> Result<(), Failure> {
        for (Member { partner, holder }, duties) in self.0.iter().zip(obligations) {
            check_obligations(duties, holder.workload(), &partner.signers)
                .map_err(|failure| blame(&partner.name, failure))?;
        }
        Ok(())
    }

    /// The keys of each partner's layers, in the order of [`Partner::keys`], asked for once all have agreed.
    async fn fetch_keys(&self) -> Result<Vec<Vec<KeyEncryptionKey>>, Failure> {
        let fetched = self.0.iter().map(|Member { partner, holder }| async move {
            holder.fetch_keys(&partner.keys).await.map_err(|failure| blame(&partner.name, failure))
        });
        join_all(fetched).await.into_iter().collect()
    }

    /// The one that a layer names.
    fn key<'k>(&self, keys: &'k [Vec<KeyEncryptionKey>], kid: &Kid) -> Option<&'k KeyEncryptionKey> {
        let (Member { partner, .. }, keys) = self.0.iter().zip(keys).find(|(member, _)| member.partner.owns(kid))?;
        let path = key_path(kid).ok()?;
        partner.keys.iter().zip(keys).find_map(|(own, key)| (*own == path).then_some(key))
    }

    /// Renews all leases until the first is lost; says whose it was and why.
    pub(crate) async fn keep(&mut self, asked_at: BootTime, console: &Console) -> Failure {
        let all: Vec<Deadlines> = self.0.iter().map(|member| Deadlines::of(&member.holder, asked_at)).collect();
        if let Some(left) = all.iter().map(Deadlines::left).min() {
            let (number, left) = (all.len(), left.as_secs());
            console.say(format!(
                "{number} leases are renewed; without any one of the services the workload can go on for {left} s"
            ));
        }
        for Member { partner, .. } in self.0.iter().filter(|member| !member.holder.has_signed_time()) {
            console.say(format!(
                "note: {} names no log key: nothing but this machine's own clock bounds its lease",
                partner.name
            ));
        }
        let kept = self.0.iter_mut().zip(all).map(|(Member { partner, holder }, deadlines)| {
            Box::pin(async move { blame(&partner.name, keep_lease(holder, deadlines, |_, _| {}, console).await) })
        });
        let (lost, ..) = select_all(kept).await;
        lost
    }

    /// Fetches a secret of the one partner that has the product.
    pub(crate) async fn secret(&self, path: &ResourcePath) -> Result<Zeroizing<Vec<u8>>, Refused> {
        let mut owners = self.0.iter().filter(|member| member.partner.products().contains(&path.product));
        let (first, second) = (owners.next(), owners.next());
        let failure = match (first, second) {
            (Some(Member { holder, .. }), None) => return holder.secret(path).await,
            (None, _) => Failure::denied(format!("no partner's licence is for the product of the secret `{path}`")),
            (Some(one), Some(other)) => {
                let (one, other) = (one.partner.name.clone(), other.partner.name.clone());
                Failure::bad_input(format!("the secret `{path}` may be of several partners")).cause(one).cause(other)
            }
        };
        Err(failure.hint("name it whole, `kbs:///PRODUCT/TYPE/TAG=/path`, by a product that one partner has").into())
    }

    /// Gives all leases back.
    pub(crate) async fn release(&self) {
        join_all(self.0.iter().map(|member| member.holder.release())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partners_receipts_stay_in_the_directory_that_was_named() {
        for (authority, name) in
            [("a.example:8443", "a.example-8443"), ("[::1]:8443", "---1--8443"), ("..", "-.."), ("./b", "-.-b")]
        {
            assert_eq!(directory_of(authority), name);
        }
    }

    #[test]
    fn what_any_partner_demands_of_the_root_file_system_binds_all() {
        let duties = |read_only_root| Obligations { read_only_root, ..Obligations::default() };
        assert!(merged(&[duties(false), duties(true), duties(false)]).read_only_root);
        assert!(!merged(&[duties(false), duties(false)]).read_only_root);
    }
}
