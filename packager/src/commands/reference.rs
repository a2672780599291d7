//! `reference`: the guests that may open a product's images, by launch measurement or ID key.

use std::io::Read as _;
use std::path::Path;

use attestation_service::api::{NewReference, Reference, ReferenceValue, Retirement};
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use launch_evidence::measure::origin::{FileOrigin, LaunchOrigin};
use launch_evidence::{InitDataDigest, Measurement};
use release_protocol::{InitData, LaunchStatement, host_data};
use serde_json::{Value, json};

use super::measure::{inputs, measure};
use super::table;
use crate::cli::{ReferenceAddArgs, ReferenceCommand};
use crate::client::AdminClient;
use crate::home::VendorHome;

pub(crate) async fn run(home: &VendorHome, command: ReferenceCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        ReferenceCommand::Add(args) => add(&client, *args, console).await?,
        ReferenceCommand::List { product } => {
            let references: Vec<Reference> = client.get(&format!("/products/{product}/references")).await?;
            console.result(&references, || {
                let headings = ["REFERENCE", "GUESTS", "LABEL", "MEASURED FROM", "ADDED", "RETIRED"];
                table::render(&headings, references.iter().map(row).collect())
            });
        }
        ReferenceCommand::Retire { id, at, reason } => {
            let retirement = Retirement { at, reason };
            let reference: Reference = client.post(&format!("/references/{id}/retire"), &retirement).await?;
            console.result(&reference, || format!("{id} counts no more from {}", retired(&reference)));
        }
        ReferenceCommand::Remove { product, reference } => {
            client.delete(&format!("/products/{product}/references/{reference}")).await?;
            console.result(&json!({"removed": reference}), || format!("removed {reference}"));
        }
    }
    Ok(())
}

async fn add(client: &AdminClient, args: ReferenceAddArgs, console: &Console) -> Result<(), Failure> {
    let mut added: Vec<Reference> = Vec::new();
    // All are measured before the first is added.
    for new in new_references(&args)? {
        added.push(client.post(&format!("/products/{}/references", args.product), &new).await?);
    }
    let ids = || added.iter().map(|reference| reference.id.as_str()).collect::<Vec<_>>().join("\n");
    match added.as_slice() {
        [single] => console.result(single, ids),
        many => console.result(&many, ids),
    }
    Ok(())
}

fn new_references(args: &ReferenceAddArgs) -> Result<Vec<NewReference>, Failure> {
    let new = |value, source| NewReference { value, label: args.label.clone(), source };
    if let (Some(id_key_digest), Some(min_svn)) = (args.id_key_digest, args.min_svn) {
        return Ok(vec![new(ReferenceValue::IdKey { id_key_digest, min_svn }, Value::Null)]);
    }
    if let Some(text) = &args.digest {
        return Ok(vec![new(ReferenceValue::Measurement { measurement: digest(text)? }, Value::Null)]);
    }
    if let Some(file) = &args.init_data {
        return Ok(vec![new(ReferenceValue::InitData { init_data: init_data(file)? }, Value::Null)]);
    }
    inputs(&args.launch)?
        .iter()
        .map(|input| {
            let origin = || input.origin().or_fail(ExitCode::BadInput, || "cannot read what boots".to_owned());
            let before = origin()?;
            let measurement = measure(input)?;
            if origin()? != before {
                return Err(Failure::bad_input("a file changed while it was measured".to_owned()));
            }
            let source = serde_json::to_value(&before).or_fail(ExitCode::Other, || "cannot write JSON".to_owned())?;
            Ok(new(ReferenceValue::Measurement { measurement }, source))
        })
        .collect()
}

/// The digest of initialisation data that name what they let run: others would open nothing.
fn init_data(file: &Path) -> Result<InitDataDigest, Failure> {
    let cannot = || format!("cannot read the initialisation data `{}`", file.display());
    let body = std::fs::read_to_string(file).or_fail(ExitCode::BadInput, cannot)?;
    let digest = InitDataDigest(host_data(body.as_bytes()));
    let format = if body.trim_start().starts_with('{') { "json" } else { "toml" }.to_owned();
    match LaunchStatement::read(&InitData { format, body }) {
        LaunchStatement { license: Some(_), manifest: Some(_) } => Ok(digest),
        _ => Err(Failure::bad_input(format!(
            "the initialisation data `{}` name no licence and no image",
            file.display()
        ))
        .hint(
            "put `sealift.license` (the licence file's text) and `sealift.manifest` (`sha256:…`) into the table `data`",
        )),
    }
}

fn digest(text: &str) -> Result<Measurement, Failure> {
    let text = if text == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .or_fail(ExitCode::BadInput, || "cannot read stdin".to_owned())?;
        text.trim().to_owned()
    } else {
        text.to_owned()
    };
    text.parse().or_fail(ExitCode::BadInput, || format!("`{text}` is no launch measurement")).map_err(|failure| {
        failure.hint("compute one with `sealift measure snp` or `sealift simulate launch --measure-only`")
    })
}

fn row(reference: &Reference) -> Vec<String> {
    let guests = match &reference.value {
        ReferenceValue::Measurement { measurement } => measurement.to_string(),
        ReferenceValue::IdKey { id_key_digest, min_svn } => format!("ID key {id_key_digest}\nfrom SVN {min_svn}"),
        other => other.to_string(),
    };
    vec![
        reference.id.clone(),
        guests,
        reference.label.clone(),
        source(&reference.source),
        reference.added_at.to_string(),
        retired(reference),
    ]
}

/// From when on it does not count, and why; empty where there is no date.
pub(crate) fn retired(reference: &Reference) -> String {
    let Some(at) = reference.retired_at else { return String::new() };
    format!("{at}: {}", reference.retire_reason.as_deref().unwrap_or_default())
}

/// What a launch was measured from, one thing a line.
fn source(source: &Value) -> String {
    if source.is_null() {
        return String::new();
    }
    let Ok(origin) = serde_json::from_value::<LaunchOrigin>(source.clone()) else { return source.to_string() };
    let LaunchOrigin { vmm, vcpus, vcpu_type, guest_features, ovmf, kernel, initrd, append } = origin;
    let mut lines = vec![format!("{vmm}, {vcpus} vCPU {vcpu_type}, features {guest_features}")];
    for (what, file) in [("ovmf", Some(ovmf)), ("kernel", kernel), ("initrd", initrd)] {
        if let Some(FileOrigin { name, sha256 }) = file {
            lines.push(format!("{what} {} {}", name.escape_debug(), sha256));
        }
    }
    lines.extend(append.map(|append| format!("append {append:?}")));
    lines.join("\n")
}
