//! `audit`: what was released to whom, and what was denied; and the proof of it.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use attestation_service::AuditEntry;
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use jose::signing::VerifyingKey;
use release_protocol::MAX_EVIDENCE_BUNDLE_BYTES;
use serde::Deserialize;
use serde_json::{Value, json};
use transparency_log::{
    Checkpoint, CompactRange, Hash, HashSource as _, NodeId, Receipt, ReceiptError, SignedCheckpoint, TileError,
    TileKind, TilePath, TileSet, VerifierKey, Witnesses, decode_bundle, hash_leaf, tile_paths,
};

use super::bundle::{self, Keys};
use super::{joint, table};
use crate::cli::AuditCommand;
use crate::client::AdminClient;
use crate::evidence::joint::PartnerKeys;
use crate::home::{VendorHome, write_new};

pub(crate) async fn run(home: &VendorHome, command: AuditCommand, console: &Console) -> Result<(), Failure> {
    match command {
        AuditCommand::List { limit } => list(home, limit, console).await,
        AuditCommand::Show { entry } => show(home, entry, console).await,
        AuditCommand::Prove { entry, file } => prove(home, entry, file.as_deref(), console).await,
        AuditCommand::Verify { file, key, witnesses, license_key, roots, relay } => {
            let witnesses = witnesses.witnesses()?;
            let name = format!("`{}`", file.display());
            let json = read(&file)?;
            let roots = roots.iter().map(|path| crate::evidence::input::read(path)).collect::<Result<Vec<_>, _>>();
            let roots = roots.map_err(Failure::bad_input)?;
            match format_of(&json).as_deref() {
                Some(format) if !relay.is_empty() && format.starts_with(JOINT_FORMATS) => Err(not_relayed()),
                None if !relay.is_empty() => Err(not_relayed()),
                None => verify(&name, &json, &log_key(home, only("--key", key)?)?, &witnesses, console),
                Some(format) if format.starts_with(JOINT_FORMATS) => {
                    let partners = partners(home, key, license_key)?;
                    joint::check(&name, &json, &partners, &witnesses, &roots, console)
                }
                Some(_) => {
                    let keys = Keys {
                        log: log_key(home, only("--key", key)?)?,
                        license: license_public_key(home, only("--license-key", license_key)?)?,
                        witnesses: &witnesses,
                        roots: &roots,
                    };
                    bundle::check(&name, &json, &relay, &keys, console)
                }
            }
        }
        AuditCommand::Bundle { to, part, receipts } => joint::assemble(&to, &part, &receipts, console),
        AuditCommand::Export(args) => match &args.lease {
            Some(lease) => bundle::export(home, &args, lease, console).await,
            None => export(home, &args.to, console).await,
        },
    }
}

async fn list(home: &VendorHome, limit: u32, console: &Console) -> Result<(), Failure> {
    let entries: Vec<AuditEntry> = AdminClient::new(home)?.get(&format!("/audit?limit={limit}")).await?;
    console.result(&entries, || {
        table::render(
            &["ENTRY", "AT", "KIND", "PLATFORM", "WHAT"],
            entries.iter().map(|entry| row(entry).to_vec()).collect(),
        )
    });
    Ok(())
}

async fn show(home: &VendorHome, entry: u64, console: &Console) -> Result<(), Failure> {
    let entry: AuditEntry = AdminClient::new(home)?.get(&format!("/audit/{entry}")).await?;
    console.result(&entry, || {
        let [number, at, kind, platform, _] = row(&entry);
        let platform = if platform.is_empty() { platform } else { format!("  {platform}") };
        format!(
            "entry {number}  {at}  {kind}{platform}\n{}",
            serde_json::to_string_pretty(&entry.body).unwrap_or_default()
        )
    });
    Ok(())
}

async fn prove(home: &VendorHome, entry: u64, file: Option<&Path>, console: &Console) -> Result<(), Failure> {
    let receipt: Receipt = AdminClient::new(home)?.get(&format!("/log/receipts/{entry}")).await?;
    // The service is not believed either: a receipt that does not hold would be found out too late.
    receipt.verify(&log_key(home, None)?).map_err(|error| refused("the service's receipt", &error))?;
    let text = serde_json::to_string_pretty(&receipt).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
    match file {
        None => console.result(&receipt, || text),
        Some(file) => {
            write_new(file, format!("{text}\n").as_bytes(), 0o644)?;
            console.result(&json!({"entry": entry, "file": file}), || file.display().to_string());
        }
    }
    Ok(())
}

/// How the forms of joint bundles begin, of whatever version.
const JOINT_FORMATS: &str = "sealift-joint-evidence/";

/// The one key that a receipt or a bundle of one service is judged by.
fn only(switch: &str, mut paths: Vec<PathBuf>) -> Result<Option<PathBuf>, Failure> {
    let path = paths.pop();
    if paths.is_empty() {
        return Ok(path);
    }
    Err(Failure::usage(format!("one `{switch}` is wanted: the file is of one service")))
}

fn not_relayed() -> Failure {
    Failure::usage("`--relay` goes with the evidence bundle of a lease that a relay gave")
}

/// By what each partner's part of a joint bundle is judged.
fn partners(home: &VendorHome, logs: Vec<PathBuf>, licenses: Vec<PathBuf>) -> Result<Vec<PartnerKeys>, Failure> {
    if logs.len() != licenses.len() || logs.len() < 2 {
        let (logs, licenses) = (logs.len(), licenses.len());
        return Err(Failure::usage(format!(
            "a joint bundle is judged by the keys of all partners, and these are {logs} and {licenses}"
        ))
        .hint("name `--key` and `--license-key` once for each partner, in the same order"));
    }
    logs.into_iter()
        .zip(licenses)
        .map(|(log, license)| {
            let (log, license) = (log_key(home, Some(log))?, license_public_key(home, Some(license))?);
            Ok(PartnerKeys { log, license })
        })
        .collect()
}

/// Reads what is to be verified, no more than a bundle may have.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_EVIDENCE_BUNDLE_BYTES + 1).read_to_end(&mut bytes))
        .or_fail(ExitCode::BadInput, || format!("cannot read `{}`", path.display()))?;
    if bytes.len() as u64 > MAX_EVIDENCE_BUNDLE_BYTES {
        let limit = MAX_EVIDENCE_BUNDLE_BYTES;
        return Err(Failure::bad_input(format!("`{}` has more than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

/// Which bundle it says to be; what is malformed, and what says nothing, is judged as a receipt.
fn format_of(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Form {
        format: Value,
    }
    let Form { format } = serde_json::from_slice(json).ok()?;
    Some(format.as_str().unwrap_or_default().to_owned())
}

fn license_public_key(home: &VendorHome, path: Option<PathBuf>) -> Result<VerifyingKey, Failure> {
    let path = path.unwrap_or_else(|| home.service().license_public_key_path());
    let pem = fs::read_to_string(&path)
        .or_fail(ExitCode::BadInput, || format!("cannot read the licence key `{}`", path.display()))?;
    VerifyingKey::from_spki_pem(&pem)
        .or_fail(ExitCode::BadInput, || format!("`{}` is no public key in PEM", path.display()))
}

fn verify(name: &str, json: &[u8], key: &VerifierKey, witnesses: &Witnesses, console: &Console) -> Result<(), Failure> {
    let receipt = Receipt::from_json(json).or_fail(ExitCode::BadInput, || format!("{name} is no receipt"))?;
    let verified = receipt.verify_witnessed(key, witnesses).map_err(|error| refused(name, &error))?;
    let entry: Value = serde_json::from_slice(verified.entry)
        .or_fail(ExitCode::BadInput, || format!("{name} proves an entry that is no JSON"))?;
    let Checkpoint { origin, size, root, .. } = &verified.checkpoint;
    let document = json!({
        "log": origin.as_str(), "size": size, "root": root, "index": verified.index, "entry": entry,
        "cosignatures": verified.cosignatures,
    });
    console.result(&document, || {
        let entry = serde_json::to_string_pretty(&entry).unwrap_or_default();
        let mut lines = vec![format!("leaf {} of the {size} in {origin}:", verified.index)];
        lines.extend(verified.cosignatures.iter().map(ToString::to_string).chain([entry]));
        lines.join("\n")
    });
    Ok(())
}

async fn export(home: &VendorHome, directory: &Path, console: &Console) -> Result<(), Failure> {
    let (client, key) = (AdminClient::new(home)?, log_key(home, None)?);
    // First: what witnesses have seen is no more than what is there.
    let cosigned = match client.get_bytes("/log/checkpoint/cosigned").await {
        Err(failure) if failure.code == ExitCode::BadInput => None,
        answer => Some(answer?),
    };
    let note = client.get_bytes("/log/checkpoint").await?;
    let checkpoint = SignedCheckpoint::from_bytes(&note)
        .and_then(|checkpoint| checkpoint.verify(&key))
        .map_err(|error| altered("the checkpoint is refused").caused_by(&error))?;
    fs::create_dir(directory).or_fail(ExitCode::BadInput, || format!("cannot make `{}`", directory.display()))?;
    let (mut tiles, mut leaves) = (TileSet::default(), Vec::new());
    for path in tile_paths(checkpoint.size) {
        let bytes = client.get_bytes(&format!("/log/{path}")).await?;
        write_tile(directory, &path, &bytes)?;
        let malformed = |error: TileError| altered(&format!("`{path}` is malformed")).caused_by(&error);
        match path.kind() {
            TileKind::Hashes(_) => tiles.insert(&path, &bytes).map_err(malformed)?,
            TileKind::Entries => {
                leaves.extend(decode_bundle(&bytes, path.width()).map_err(malformed)?.into_iter().map(hash_leaf));
            }
        }
    }
    check_tiles(&checkpoint, &tiles, &leaves)?;
    if let Some(note) = cosigned {
        check_cosigned(&note, &key, &leaves)?;
        write_new(&directory.join("checkpoint.cosigned"), &note, 0o644)?;
    }
    // Last: a directory without a checkpoint is one that was not finished.
    write_new(&directory.join("checkpoint"), &note, 0o644)?;
    let Checkpoint { origin, size, root, .. } = &checkpoint;
    let document = json!({"directory": directory, "log": origin.as_str(), "size": size, "root": root});
    console.result(&document, || format!("{size} entries of {origin}"));
    Ok(())
}

/// Checks that the hashes make the signed root, and that the entries are what was hashed.
fn check_tiles(checkpoint: &Checkpoint, tiles: &TileSet, leaves: &[Hash]) -> Result<(), Failure> {
    let root = transparency_log::root(tiles, checkpoint.size)
        .map_err(|error| altered("hashes are missing").caused_by(&error))?;
    let is_hashed = |(index, leaf): (u64, &Hash)| tiles.hash(NodeId { level: 0, index }) == Some(*leaf);
    if root != checkpoint.root || !(0..).zip(leaves).all(is_hashed) {
        return Err(altered("an entry or a hash was altered"));
    }
    Ok(())
}

/// Checks that what witnesses cosigned is the beginning of this log.
fn check_cosigned(note: &[u8], key: &VerifierKey, leaves: &[Hash]) -> Result<(), Failure> {
    let cosigned = SignedCheckpoint::from_bytes(note)
        .and_then(|checkpoint| checkpoint.verify(key))
        .map_err(|error| altered("the cosigned checkpoint is refused").caused_by(&error))?;
    let mut range = CompactRange::default();
    let count = usize::try_from(cosigned.size.get()).unwrap_or(usize::MAX);
    for leaf in leaves.iter().take(count) {
        range.append(*leaf).map_err(|error| altered("it has too many entries").caused_by(&error))?;
    }
    if range.size() != cosigned.size || range.root() != cosigned.root {
        return Err(altered("it is not the one that witnesses cosigned"));
    }
    Ok(())
}

fn altered(why: &str) -> Failure {
    Failure::verification(format!("the service's log is not what its checkpoint says: {why}"))
}

fn write_tile(directory: &Path, path: &TilePath, bytes: &[u8]) -> Result<(), Failure> {
    let file = directory.join(path.to_string());
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent).or_fail(ExitCode::BadInput, || format!("cannot make `{}`", parent.display()))?;
    }
    write_new(&file, bytes, 0o644)
}

/// The log's verifier key from a file, or from the home.
fn log_key(home: &VendorHome, path: Option<PathBuf>) -> Result<VerifierKey, Failure> {
    let path = path.unwrap_or_else(|| home.service().log_verifier_path());
    fs::read_to_string(&path)
        .or_fail(ExitCode::BadInput, || format!("cannot read the log's verifier key `{}`", path.display()))?
        .trim_end()
        .parse()
        .or_fail(ExitCode::BadInput, || format!("`{}` is no verifier key of a log", path.display()))
}

fn refused(name: &str, error: &ReceiptError) -> Failure {
    Failure::verification(format!("{name} proves nothing")).caused_by(error)
}

fn row(entry: &AuditEntry) -> [String; 5] {
    let platform = match entry.body.get("simulated") {
        Some(Value::Bool(true)) => "SIMULATED",
        Some(Value::Bool(false)) => "hardware",
        _ => "",
    };
    [
        entry.sequence.to_string(),
        entry.at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        entry.kind.clone(),
        platform.to_owned(),
        summary(&entry.body),
    ]
}

fn summary(body: &Value) -> String {
    let mut parts = Vec::new();
    for name in ["product", "license", "customer", "resource", "key", "measurement"] {
        if let Some(text) = body.get(name).and_then(Value::as_str) {
            let shown: String = text.chars().take(48).collect();
            parts.push(format!("{name}={shown}"));
        }
    }
    if let Some(token) = body.pointer("/by/token").and_then(Value::as_str) {
        parts.push(format!("by={token}"));
    }
    if let Some(reasons) = body.get("reasons").and_then(Value::as_array) {
        parts.extend(reasons.iter().filter_map(Value::as_str).map(|reason| format!("because: {reason}")));
    }
    parts.join(" ")
}
