//! `measure`: launch digests from the files that boot, and ID blocks that a guest's owner signs over them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use launch_evidence::measure::id_block::{IdBlock, OwnerKey};
use launch_evidence::measure::{LaunchInput, VcpuType, Vmm};
use launch_evidence::{GuestId, KeyDigest, Measurement};
use serde::Serialize;

use crate::cli::{IdBlockArgs, LaunchArgs, MeasureCommand, MeasureSnpArgs};
use crate::guest::launch::vcpu_type;
use crate::keys::read_owner_key;

/// One launch of the matrix.
#[derive(Serialize)]
struct Measured {
    vcpus: u32,
    vcpu_type: VcpuType,
    measurement: Measurement,
    #[serde(flatten)]
    id_block: Option<SignedIdBlock>,
}

/// An ID block, and what was said in it.
#[derive(Serialize)]
struct SignedIdBlock {
    policy: String,
    guest_svn: u32,
    family_id: GuestId,
    image_id: GuestId,
    /// Base64, as QEMU takes it.
    id_block: String,
    /// The same.
    id_auth: String,
    id_key_digest: KeyDigest,
    #[serde(skip_serializing_if = "Option::is_none")]
    author_key_digest: Option<KeyDigest>,
}

/// The keys that sign ID blocks.
struct Owner {
    id_key: OwnerKey,
    author_key: Option<OwnerKey>,
}

pub(crate) fn run(command: MeasureCommand, console: &Console) -> Result<(), Failure> {
    let MeasureCommand::Snp(MeasureSnpArgs { launch, id_block }) = command;
    let inputs = inputs(&launch)?;
    let owner = Owner::read(&id_block)?;
    let mut measured = Vec::with_capacity(inputs.len());
    for input in &inputs {
        let measurement = measure(input)?;
        let id_block = owner.as_ref().map(|owner| owner.sign(measurement, &id_block)).transpose()?;
        measured.push(Measured { vcpus: input.vcpus, vcpu_type: input.vcpu_type, measurement, id_block });
    }
    if let Some(owner) = &owner {
        console.say(format!("ID key digest {}", owner.id_key.digest()));
        if let Some(author_key) = &owner.author_key {
            console.say(format!("author key digest {}", author_key.digest()));
        }
    }
    match measured.as_slice() {
        [single] => console.result(single, || single.text()),
        // One value alone is for `$( )`; several need their parameters beside them.
        many => console.result(&many, || serde_json::to_string_pretty(many).unwrap_or_default()),
    }
    Ok(())
}

/// The matrix of launches that the arguments mean.
pub(crate) fn inputs(args: &LaunchArgs) -> Result<Vec<LaunchInput>, Failure> {
    let ovmf = args.ovmf.as_ref().ok_or_else(|| Failure::usage("a launch needs its firmware, `--ovmf`".to_owned()))?;
    let vmm: Vmm = args.vmm.parse().or_fail(ExitCode::Usage, || "cannot measure this launch".to_owned())?;
    let mut inputs = Vec::with_capacity(args.vcpu_type.len() * args.vcpus.len());
    for name in &args.vcpu_type {
        let vcpu_type = vcpu_type(name)?;
        for &vcpus in &args.vcpus {
            let mut input = LaunchInput::new(ovmf, vcpus, vcpu_type);
            input.kernel.clone_from(&args.kernel);
            input.initrd.clone_from(&args.initrd);
            input.append.clone_from(&args.append);
            input.guest_features = args.guest_features;
            input.vmm = vmm;
            inputs.push(input);
        }
    }
    Ok(inputs)
}

/// The launch digest of one of them.
pub(crate) fn measure(input: &LaunchInput) -> Result<Measurement, Failure> {
    input.measure().or_fail(ExitCode::BadInput, || "cannot compute the launch digest".to_owned())
}

impl Measured {
    /// The bare digest, or with an ID block the properties of QEMU's object `sev-snp-guest`.
    fn text(&self) -> String {
        let Some(signed) = &self.id_block else { return self.measurement.to_string() };
        let author = if signed.author_key_digest.is_some() { ",author-key-enabled=on" } else { "" };
        format!("policy={},id-block={},id-auth={}{author}", signed.policy, signed.id_block, signed.id_auth)
    }
}

impl Owner {
    /// The keys that the arguments name, where an ID block is asked for.
    fn read(args: &IdBlockArgs) -> Result<Option<Self>, Failure> {
        let Some(id_key) = args.id_key.as_ref().filter(|_| args.id_block) else { return Ok(None) };
        if id_key == "-" && args.author_key.as_deref() == Some("-") {
            return Err(Failure::usage("only one of `--id-key` and `--author-key` can be read from stdin".to_owned()));
        }
        let author_key = args.author_key.as_deref().map(read_owner_key).transpose()?;
        Ok(Some(Self { id_key: read_owner_key(id_key)?, author_key }))
    }

    fn sign(&self, measurement: Measurement, args: &IdBlockArgs) -> Result<SignedIdBlock, Failure> {
        let IdBlockArgs { family, image, svn, policy, .. } = *args;
        let block = IdBlock { measurement, family_id: family, image_id: image, guest_svn: svn, policy };
        let auth = block
            .sign(&self.id_key, self.author_key.as_ref())
            .or_fail(ExitCode::BadInput, || "cannot sign the ID block".to_owned())?;
        Ok(SignedIdBlock {
            policy: format!("{policy:#x}"),
            guest_svn: svn,
            family_id: family,
            image_id: image,
            id_block: STANDARD.encode(block.to_bytes()),
            id_auth: STANDARD.encode(auth.as_bytes()),
            id_key_digest: auth.id_key_digest(),
            author_key_digest: auth.author_key_digest(),
        })
    }
}
