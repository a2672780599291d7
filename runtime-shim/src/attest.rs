//! `attest`: this machine's evidence and the service's verdict, without asking for anything to be released.

use command_line::{Console, Failure};
use serde_json::{Value, json};

use crate::cli::AttestArgs;
use crate::kbs::{Refused, ServiceClient};
use crate::{attester, license};

pub(crate) async fn run(args: AttestArgs, console: &Console) -> Result<(), Failure> {
    let license = license::read(&args.license)?;
    let service = license.unverified().service.url.clone();
    let attester = attester::open(console)?;
    let client = ServiceClient::new(license)?.with_init_data(args.init_data.as_deref())?;
    let challenge = client.challenge(&attester).await.map_err(Refused::into_failure)?;
    let answer = client.attest(&attester, challenge, None, None).await.map_err(Refused::into_failure)?.answer;
    let claims = claims(&answer.token)?;
    let document = json!({
        "service": service, "tee": attester.tee(), "simulated": answer.simulated, "verdict": claims["ear.status"],
        "evidence": claims["ear.veraison.annotated-evidence"][attester.tee()],
    });
    console.result(&document, || {
        let evidence = &document["evidence"];
        let platform = if answer.simulated { "SIMULATED, protects nothing" } else { "hardware" };
        [
            format!("service      {service}"),
            format!("tee          {} ({platform})", attester.tee()),
            format!("verdict      {}", text(&claims["ear.status"])),
            format!("measurement  {}", text(measurement(evidence))),
            format!("chip         {}", text(&evidence["chip_id"])),
        ]
        .join("\n")
    });
    Ok(())
}

/// The claims of the CPU, read without checking the token: it came over TLS from the service itself.
fn claims(token: &str) -> Result<Value, Failure> {
    let unusable = || Failure::verification("the service's token cannot be read");
    let decoded = jose::jws::decode_unverified(token, "JWT").map_err(|error| unusable().caused_by(&error))?;
    let claims: Value = decoded.claims().map_err(|error| unusable().caused_by(&error))?;
    Ok(claims["submods"]["cpu0"].clone())
}

/// What was in memory at launch; of a TD and on Azure what boots above it is measured apart.
fn measurement(evidence: &Value) -> &Value {
    const NAMES: [&str; 3] = ["measurement", "mrtd", "hcl_measurement"];
    NAMES.iter().find_map(|name| evidence.get(name)).unwrap_or(&Value::Null)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("(none)")
}
