//! `reference`: the launch measurements that may open a product's images.

use std::io::Read as _;

use attestation_service::api::Reference;
use command_line::{Console, ExitCode, Failure, FailureContext as _};
use launch_evidence::Measurement;
use serde_json::{Value, json};

use super::table;
use crate::cli::{ReferenceAddArgs, ReferenceCommand};
use crate::client::AdminClient;
use crate::home::VendorHome;

pub(crate) async fn run(home: &VendorHome, command: ReferenceCommand, console: &Console) -> Result<(), Failure> {
    let client = AdminClient::new(home)?;
    match command {
        ReferenceCommand::Add(args) => {
            let measurement = measurement(&args)?;
            let reference = Reference {
                measurement: measurement.to_string(),
                label: args.label,
                source: Value::Null,
                added_at: None,
            };
            client.submit(&format!("/products/{}/references", args.product), &reference).await?;
            console.result(&reference, || reference.measurement.clone());
        }
        ReferenceCommand::List { product } => {
            let references: Vec<Reference> = client.get(&format!("/products/{product}/references")).await?;
            console.result(&references, || {
                let rows = references.iter().map(|reference| {
                    let added = reference.added_at.map(|at| at.to_string()).unwrap_or_default();
                    vec![reference.measurement.clone(), reference.label.clone(), added]
                });
                table::render(&["MEASUREMENT", "LABEL", "ADDED"], rows.collect())
            });
        }
        ReferenceCommand::Remove { product, measurement } => {
            client.delete(&format!("/products/{product}/references/{measurement}")).await?;
            console.result(&json!({"removed": measurement}), || format!("removed {measurement}"));
        }
    }
    Ok(())
}

fn measurement(args: &ReferenceAddArgs) -> Result<Measurement, Failure> {
    let text = if args.digest == "-" {
        let mut text = String::new();
        std::io::stdin()
            .take(4096)
            .read_to_string(&mut text)
            .or_fail(ExitCode::BadInput, || "cannot read stdin".to_owned())?;
        text.trim().to_owned()
    } else {
        args.digest.clone()
    };
    text.parse().or_fail(ExitCode::BadInput, || format!("`{text}` is no launch measurement")).map_err(|failure| {
        failure.hint("compute one with `sealift measure snp` or `sealift simulate launch --measure-only`")
    })
}
