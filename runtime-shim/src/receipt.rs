//! `receipt verify` and `receipt refresh`: what the customer does with receipts that were kept.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use command_line::{Answerer, Console, ExitCode, Failure, FailureContext as _, whole_file};
use serde_json::{Value, json};
use transparency_log::{MAX_RECEIPT_BYTES, Receipt, VerifierKey, Witnesses};

use crate::cli::ReceiptCommand;
use crate::kbs::{Refused, ServiceClient};
use crate::license;

pub(crate) async fn run(command: ReceiptCommand, console: &Console) -> Result<(), Failure> {
    match command {
        ReceiptCommand::Verify { file, license, key, witnesses } => {
            let key = match (license, key) {
                (Some(path), _) => log_key(&path)?,
                (None, Some(path)) => fs::read_to_string(&path)
                    .or_fail(ExitCode::BadInput, || format!("cannot read the key `{}`", path.display()))?
                    .trim()
                    .parse()
                    .or_fail(ExitCode::BadInput, || format!("`{}` is no verifier key", path.display()))?,
                (None, None) => return Err(Failure::usage("name the log's key by `--license` or `--key`")),
            };
            let receipt = read(&file)?;
            show(&receipt, &name(&file), &key, &witnesses.witnesses()?, console)
        }
        ReceiptCommand::Refresh { file, license } => refresh(&file, &license, console).await,
    }
}

/// Replaces the receipt by one under the newest checkpoint that witnesses cosigned.
async fn refresh(file: &Path, license_file: &Path, console: &Console) -> Result<(), Failure> {
    let key = log_key(license_file)?;
    let receipt = read(file)?;
    let proves_nothing = || format!("{} proves nothing", name(file));
    receipt.verify(&key).or_fail(ExitCode::VerificationFailed, proves_nothing)?;
    let client = ServiceClient::new(license::read(license_file)?)?;
    let place = client.witnessed_place(receipt.index.get()).await.map_err(Refused::into_failure)?;
    let fresh = Receipt { proof: place.inclusion_proof, checkpoint: place.checkpoint, ..receipt };
    fresh
        .verify(&key)
        .or_fail(ExitCode::VerificationFailed, || "the service's proof does not hold".to_owned())
        .map_err(|failure| {
            failure
                .from_answerer(Answerer::Service)
                .hint("keep the receipt as it is: it proves an entry that the log which witnesses saw does not have")
        })?;
    let text = serde_json::to_vec_pretty(&fresh).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
    whole_file::write(file, &text)?;
    let checkpoint = fresh.checkpoint.to_string();
    console.result(&json!({"file": file, "checkpoint": checkpoint}), || checkpoint.trim_end().to_owned());
    Ok(())
}

fn show(
    receipt: &Receipt,
    name: &str,
    key: &VerifierKey,
    witnesses: &Witnesses,
    console: &Console,
) -> Result<(), Failure> {
    let verified = receipt
        .verify_witnessed(key, witnesses)
        .or_fail(ExitCode::VerificationFailed, || format!("{name} proves nothing"))?;
    let entry: Value = serde_json::from_slice(verified.entry)
        .or_fail(ExitCode::BadInput, || format!("{name} proves an entry that is no JSON"))?;
    let document = json!({
        "log": verified.checkpoint.origin.as_str(), "size": verified.checkpoint.size, "index": verified.index,
        "entry": entry, "cosignatures": verified.cosignatures,
    });
    console.result(&document, || {
        let entry = serde_json::to_string_pretty(&entry).unwrap_or_default();
        let (index, size) = (verified.index, verified.checkpoint.size);
        let mut lines = vec![format!("leaf {index} of the {size} in {}:", key.name())];
        lines.extend(verified.cosignatures.iter().map(ToString::to_string).chain([entry]));
        lines.join("\n")
    });
    Ok(())
}

fn log_key(license_file: &Path) -> Result<VerifierKey, Failure> {
    license::read(license_file)?.unverified().service.log_key.clone().ok_or_else(|| {
        Failure::bad_input(format!("the licence `{}` names no log key", license_file.display()))
            .hint("ask the vendor for `log.pub`, and name it by `--key`")
    })
}

fn name(file: &Path) -> String {
    format!("`{}`", file.display())
}

fn read(file: &Path) -> Result<Receipt, Failure> {
    let mut bytes = Vec::new();
    fs::File::open(file)
        .and_then(|file| file.take(MAX_RECEIPT_BYTES as u64 + 1).read_to_end(&mut bytes))
        .or_fail(ExitCode::BadInput, || format!("cannot read {}", name(file)))?;
    Receipt::from_json(&bytes).or_fail(ExitCode::BadInput, || format!("{} is no receipt", name(file)))
}
