//! `audit bundle` and `audit verify` of what it made: one run of an image of several partners, in one file.

use std::path::{Path, PathBuf};

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use release_protocol::{EVIDENCE_BUNDLE_FORMAT, EvidenceBundle, JOINT_EVIDENCE_FORMAT, JointEvidence};
use serde_json::{Value, json};
use transparency_log::{Receipt, Witnesses};

use super::audit::read;
use crate::evidence::bundle::moment;
use crate::evidence::joint::{JointError, PartnerKeys, ProvenJoint, ProvenPart, verify_joint};
use crate::evidence::trust::Trust;
use crate::home::write_new;

/// Joins the partners' parts and the customer's receipts of their leases.
pub(crate) fn assemble(to: &Path, files: &[PathBuf], receipts: &Path, console: &Console) -> Result<(), Failure> {
    let mut parts = Vec::with_capacity(files.len());
    for file in files {
        let part: EvidenceBundle = serde_json::from_slice(&read(file)?)
            .or_fail(ExitCode::BadInput, || format!("`{}` is no evidence bundle", file.display()))
            .map_err(|failure| {
                failure.hint("each partner makes its part by `sealift audit export --lease LEASE FILE`")
            })?;
        if part.format != EVIDENCE_BUNDLE_FORMAT {
            return Err(Failure::bad_input(format!("`{}` is of another form", file.display())));
        }
        parts.push(part);
    }
    let receipts = receipts_of(&parts, receipts)?;
    let evidence = JointEvidence { format: JOINT_EVIDENCE_FORMAT.to_owned(), parts, receipts };
    let text = serde_json::to_string_pretty(&evidence).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
    // Licences are in it.
    write_new(to, format!("{text}\n").as_bytes(), 0o600)?;
    let (parts, receipts) = (evidence.parts.len(), evidence.receipts.len());
    let document = json!({"file": to, "parts": parts, "receipts": receipts});
    console.result(&document, || format!("{}: {parts} parts, {receipts} receipts", to.display()));
    Ok(())
}

/// The receipts in the directory that are of one of the leases, by their names' order.
fn receipts_of(parts: &[EvidenceBundle], directory: &Path) -> Result<Vec<Receipt>, Failure> {
    // Partners whose logs have the same name have a directory each in it.
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for path in list(directory)? {
        if path.is_dir() {
            directories.push(path);
        } else {
            files.push(path);
        }
    }
    for directory in directories {
        files.extend(list(&directory)?);
    }
    files.retain(|path| path.to_string_lossy().ends_with(".receipt.json"));
    let mut receipts = Vec::new();
    for file in files {
        let receipt = Receipt::from_json(&read(&file)?)
            .or_fail(ExitCode::BadInput, || format!("`{}` is no receipt", file.display()))?;
        let entry: Value = serde_json::from_slice(&receipt.entry).unwrap_or_default();
        if parts.iter().any(|part| entry["body"]["lease"] == part.lease.0.as_str()) {
            receipts.push(receipt);
        }
    }
    if receipts.is_empty() {
        return Err(Failure::bad_input(format!("`{}` has no receipt of these leases", directory.display()))
            .hint("name the directory that the customer gave to `sealift-shim run --receipts`"));
    }
    Ok(receipts)
}

/// What is in a directory, by name.
fn list(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let cannot = || format!("cannot read the receipts in `{}`", directory.display());
    let entries = std::fs::read_dir(directory).or_fail(ExitCode::BadInput, cannot)?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>();
    let mut paths = paths.or_fail(ExitCode::BadInput, cannot)?;
    paths.sort();
    Ok(paths)
}

/// Judges joint evidence offline and says what it proves.
pub(crate) fn check(
    name: &str,
    json: &[u8],
    partners: &[PartnerKeys],
    witnesses: &Witnesses,
    roots: &[Vec<u8>],
    console: &Console,
) -> Result<(), Failure> {
    let evidence: JointEvidence =
        serde_json::from_slice(json).or_fail(ExitCode::BadInput, || format!("{name} is no joint evidence"))?;
    let trust = Trust::new(roots, None).map_err(Failure::bad_input)?;
    let proven = verify_joint(&evidence, partners, witnesses, &trust).map_err(|error| refused(name, &error))?;
    say(&proven, trust.untrusted, console);
    Ok(())
}

fn refused(name: &str, error: &JointError) -> Failure {
    match error {
        JointError::Part(_, part) => {
            let failure = super::bundle::refused(name, part);
            let causes = std::iter::once(error.to_string()).chain(failure.causes).collect();
            Failure { causes, ..failure }
        }
        JointError::Stranger(_) | JointError::Absent(_) => Failure::verification(format!("{name} proves nothing"))
            .caused_by(error)
            .hint("name the keys of exactly the partners whose parts are joined, by `--key` and `--license-key`"),
        _ => Failure::verification(format!("{name} proves nothing")).caused_by(error),
    }
}

fn say(proven: &ProvenJoint<'_>, untrusted: bool, console: &Console) {
    let simulated = proven.parts.iter().any(|part| part.proven.simulated);
    let receipts: usize = proven.parts.iter().map(|part| part.receipts.len()).sum();
    let parts: Vec<Value> = proven.parts.iter().map(part_document).collect();
    let document = json!({
        "manifest_digest": proven.manifest_digest, "signers": proven.signers, "measurement": proven.measurement,
        "guest": proven.guest, "simulated": simulated, "roots_given": untrusted, "parts": parts, "receipts": receipts,
    });
    console.result(&document, || {
        let mut lines = vec![
            format!("image   {}", proven.manifest_digest),
            format!("signed  {}", proven.signers.join(", ")),
            format!("guest   {}", proven.measurement),
        ];
        if simulated {
            lines.push("SIMULATED: the evidence proves nothing about hardware".to_owned());
        } else if untrusted {
            lines.push("UNTRUSTED: the evidence was judged by the roots that were given".to_owned());
        }
        if proven.guest.is_none() {
            lines.push("note: this TEE's evidence does not tell guests apart".to_owned());
        }
        lines.extend(proven.parts.iter().flat_map(part_lines));
        lines.push(format!(
            "{} logs and {receipts} receipts of the customer agree: one image, the same signers, one guest, at the same time",
            proven.parts.len()
        ));
        lines.join("\n")
    });
}

fn grant<'a>(part: &'a ProvenPart<'_>, name: &str) -> &'a str {
    part.proven.entries.first().and_then(|entry| entry.body[name].as_str()).unwrap_or("?")
}

fn part_document(part: &ProvenPart<'_>) -> Value {
    json!({
        "log": part.log, "lease": part.bundle.lease, "product": grant(part, "product"), "license": grant(part, "license"),
        "customer": grant(part, "customer"), "image_signers": part.proven.signers, "entries": part.proven.entries,
        "receipts": part.receipts,
    })
}

fn part_lines(part: &ProvenPart<'_>) -> Vec<String> {
    let of = |name| grant(part, name);
    let mut lines = vec![format!(
        "{}: product {}, licence {} ({}), lease {}",
        part.log,
        of("product"),
        of("license"),
        of("customer"),
        part.bundle.lease
    )];
    lines.extend(part.proven.entries.iter().map(|entry| {
        let resource = entry.body["resource"].as_str().or(entry.body["reason"].as_str()).unwrap_or_default();
        let receipt = if part.receipts.contains(&entry.sequence) { "receipt" } else { "" };
        format!("{:>8}  {}  {}  {resource}{receipt}", entry.sequence, moment(entry.at), entry.kind)
    }));
    lines
}
