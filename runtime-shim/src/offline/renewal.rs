//! `renewal`: a lease is renewed by files, or codes, that somebody carries. The request is evidence over a statement of its own; the answer is
//! the receipt of the entry that grants it. Neither holds a key: those are in the sealed state.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use carried_file::Content;
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use held_lease::{decision, history};
use jiff::Timestamp;
use release_protocol::{
    FileRenewal, RENEWAL_ANSWER_FORMAT, RENEWAL_FILE_MAX, RENEWAL_REQUEST_FORMAT, RenewalAnswer, RenewalByFile,
    RenewalRequest, RuntimeData, request_digest,
};
use serde::Deserialize;
use serde_json::json;
use transparency_log::{Receipt, SeenLog};

use super::now;
use super::record::{Pending, Record};
use super::sealed::SealedFile;
use crate::cli::{RenewalAcceptArgs, RenewalCommand, RenewalRequestArgs};
use crate::image::SignedImage;
use crate::kbs::ServiceClient;
use crate::{attester, license};

pub(crate) async fn run(command: RenewalCommand, console: &Console) -> Result<(), Failure> {
    match command {
        RenewalCommand::Request(args) => request(*args, console).await,
        RenewalCommand::Accept(args) => accept(&args, console),
    }
}

async fn request(args: RenewalRequestArgs, console: &Console) -> Result<(), Failure> {
    let RenewalRequestArgs { reference, license, offline_state, output, opening } = args;
    let output = output.prepare()?;
    let license_file = license::read(&license)?;
    let keys = license::signers(license_file.unverified())?;
    let store = opening.registry.open(&reference).await?;
    let signed = SignedImage::open(&store, &keys, opening.platform.as_deref()).await?;
    let attester = attester::open(console)?;
    let id = license_file.unverified().id.0.clone();
    let file = SealedFile::at(&offline_state, &*attester, &id, &signed.manifest_digest)?;
    let record = file.read()?.ok_or_else(|| none(&file))?;
    let asked_at = now();
    record.allowance.check_clock(asked_at).or_fail(ExitCode::Denied, || "no renewal can be asked for".to_owned())?;
    let known = newest_receipt(&record)?;
    let (entry, log_size) = (number(known), known.checkpoint.unverified().size.get());
    let token = license_file.token().to_owned();
    let client =
        ServiceClient::new(license_file)?.with_init_data(opening.init_data.as_deref())?.with_key(record.lease_key()?);
    let mut nonce = [0; 32];
    rand::fill(&mut nonce).or_fail(ExitCode::Other, || "the random generator failed".to_owned())?;
    let runtime_data = RuntimeData {
        nonce: STANDARD.encode(nonce),
        tee_pubkey: client.public_key()?,
        license: Some(token),
        workload: Some(record.workload.clone()),
        lease: Some(record.lease.id.clone()),
        relay: None,
        offline: true,
        renewal: Some(FileRenewal { made_at: moment(asked_at), entry, log_size }),
    };
    let attestation = client.evidence(&attester, &runtime_data).await?;
    let digest = request_digest(&attestation.runtime_data)
        .or_fail(ExitCode::Other, || "the request cannot be written".to_owned())?;
    let request = RenewalRequest { format: RENEWAL_REQUEST_FORMAT.to_owned(), attestation };
    let json = serde_json::to_vec(&request).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
    let ready = output.render(Content::RenewalRequest, &json)?;
    let used = record.allowance.used;
    // The platform may have taken its time, while a workload that runs counts on. Only what is kept as pending can be answered.
    let _lock = file.lock()?;
    let mut record = file.read()?.ok_or_else(|| none(&file))?;
    record.allowance.count(asked_at, Duration::ZERO);
    record.pending = Some(Pending { request: digest.clone(), asked_at, used });
    file.write(&record)?;
    // The licence is in it, which is a bearer's token.
    ready.write(0o600)?;
    let (file, codes, lease) = (ready.file(), ready.codes(), &record.lease.id);
    let document = json!({"file": file, "codes": codes, "request": digest, "lease": lease, "bytes": json.len()});
    console.result(&document, || format!("asked for lease {lease} by {}; an earlier request is void", ready.places()));
    Ok(())
}

fn accept(args: &RenewalAcceptArgs, console: &Console) -> Result<(), Failure> {
    let answer = read_answer(&args.answer, console)?;
    let entry = Entry::read(&answer.receipt.entry)?;
    let attester = attester::open(console)?;
    let file = SealedFile::at(&args.offline_state, &*attester, &entry.body.license, &entry.body.manifest_digest)?;
    let _lock = file.lock()?;
    let mut record = file.read()?.ok_or_else(|| none(&file))?;
    let granted = verified(&answer, &record)?;
    let pending = record
        .pending
        .take_if(|pending| pending.request == granted.request)
        .ok_or_else(|| refused("the answer is to no request that waits for one", "each request is answered once"))?;
    record.allowance.check_clock(now()).or_fail(ExitCode::Denied, || "the answer is not accepted".to_owned())?;
    record.allowance = record.allowance.renewed(granted.offline_seconds, pending.asked_at, pending.used);
    record.allowance.count(now(), Duration::ZERO);
    record.obligations.offline_seconds = Some(granted.offline_seconds);
    record.receipt = Some(answer.receipt);
    file.write(&record)?;
    let left = record.allowance.left().as_secs();
    let document = json!({"lease": record.lease.id, "entry": entry.sequence, "left_seconds": left});
    console
        .result(&document, || format!("lease {} is renewed: {left} s are left without the service", record.lease.id));
    Ok(())
}

/// What the answer grants, once its receipt is seen to be of the log that the licence names, and of this very lease.
fn verified(answer: &RenewalAnswer, record: &Record) -> Result<RenewalByFile, Failure> {
    let key = record.log_key.as_ref().ok_or_else(no_log)?;
    let receipt = answer
        .receipt
        .verify(key)
        .or_fail(ExitCode::VerificationFailed, || "the answer's receipt proves nothing".to_owned())
        .map_err(|failure| failure.hint("take the file to this machine again as the vendor's desk wrote it"))?;
    decision(receipt.entry, &record.lease.id)?;
    let known = newest_receipt(record)?;
    if receipt.index <= known.index {
        return Err(refused("the answer is older than what this guest knows", "make a new request"));
    }
    let mut log = SeenLog::new(key.clone());
    let extends = log
        .advance(&known.checkpoint, None)
        .and_then(|_| log.advance(&answer.receipt.checkpoint, Some(&answer.consistency)));
    extends.map_err(|error| history(&error))?;
    let entry = Entry::read(receipt.entry)?;
    entry.body.renewal.ok_or_else(|| {
        refused("the answer's entry is of no renewal by file", "ask the vendor for the answer to this guest's request")
    })
}

/// The members that count of the entry of a renewal by file.
#[derive(Deserialize)]
struct Entry {
    sequence: u64,
    body: Body,
}

#[derive(Deserialize)]
struct Body {
    license: String,
    manifest_digest: String,
    #[serde(flatten)]
    renewal: Option<RenewalByFile>,
}

impl Entry {
    fn read(json: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(json)
            .or_fail(ExitCode::BadInput, || "the answer's receipt is of no renewal".to_owned())
            .map_err(|failure| failure.hint("the vendor makes an answer by `sealift lease renew`"))
    }
}

fn read_answer(path: &Path, console: &Console) -> Result<RenewalAnswer, Failure> {
    let cannot = || format!("`{}` is no answer to a request for renewal", path.display());
    let json = carried_file::read(path, Content::RenewalAnswer, RENEWAL_FILE_MAX, console)?;
    let answer: RenewalAnswer = serde_json::from_slice(&json)
        .or_fail(ExitCode::BadInput, cannot)
        .map_err(|failure| failure.hint("the vendor makes one by `sealift lease renew`"))?;
    if answer.format != RENEWAL_ANSWER_FORMAT {
        return Err(Failure::bad_input(cannot()).cause(format!("only `{RENEWAL_ANSWER_FORMAT}` is known")));
    }
    Ok(answer)
}

/// The receipt of the last grant or renewal that this guest knows of.
fn newest_receipt(record: &Record) -> Result<&Receipt, Failure> {
    record.receipt.as_ref().ok_or_else(no_log)
}

/// The number of a receipt's audit entry.
fn number(receipt: &Receipt) -> u64 {
    receipt.index.get().saturating_add(1)
}

fn no_log() -> Failure {
    Failure::bad_input("the licence names no log key: no answer that is carried by file could be believed")
        .hint("ask the vendor to issue the licence anew, and start once where the service can be reached")
}

fn none(file: &SealedFile) -> Failure {
    Failure::bad_input(format!("there is no sealed state `{}` to renew", file.path().display()))
        .hint("start once where the service can be reached (`sealift-shim run --offline-state DIR`)")
}

fn refused(message: &str, hint: &str) -> Failure {
    Failure::verification(message).hint(hint)
}

fn moment(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or_default()
}
