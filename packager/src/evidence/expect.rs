//! What evidence must say: from switches or from a batch's request, into the verifier's question.

use std::collections::BTreeMap;

use jiff::Timestamp;
use launch_evidence::saved::Question;
use launch_evidence::snp::Product;
use launch_evidence::{HostData, Measurement, MinimumTcb, Requirements, Revocation};
use serde::Deserialize;

use crate::cli::ExpectArgs;

/// The `expect` of a batch's request.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is a member of its own in a request")]
pub(crate) struct Expect {
    vmpl: u32,
    allow_debug: bool,
    allow_migrate_ma: bool,
    min_tcb: BTreeMap<Product, MinimumTcb>,
    measurement: Option<String>,
    report_data: Option<String>,
    host_data: Option<String>,
    require_chip_binding: bool,
    require_crl: bool,
}

impl Expect {
    /// The verifier's question; `Err` says what is malformed.
    pub(crate) fn question(self, at: Timestamp) -> Result<Question, String> {
        let measurements = self.measurement.iter().map(|text| measurement(text)).collect::<Result<_, _>>()?;
        let requirements = Requirements {
            vmpl: self.vmpl,
            allow_debug: self.allow_debug,
            allow_migration_agent: self.allow_migrate_ma,
            minimum_tcb: self.min_tcb,
            measurements,
            require_chip_binding: self.require_chip_binding,
            revocation: if self.require_crl { Revocation::Require } else { Revocation::IfPresent },
            ..Requirements::default()
        };
        Ok(Question {
            report_data: self.report_data.as_deref().map(|text| bytes("report_data", text)).transpose()?,
            host_data: self.host_data.as_deref().map(|text| bytes("host_data", text)).transpose()?.map(host_data),
            requirements,
            at,
        })
    }
}

/// The question that the switches ask.
pub(crate) fn question(args: &ExpectArgs, at: Timestamp) -> Result<Question, String> {
    let requirements = Requirements {
        vmpl: args.vmpl,
        allow_debug: args.allow_debug,
        allow_migration_agent: args.allow_migrate_ma,
        minimum_tcb: args.min_tcb.iter().cloned().collect(),
        measurements: args.measurement.clone(),
        require_chip_binding: args.require_chip_binding,
        revocation: if args.require_crl { Revocation::Require } else { Revocation::IfPresent },
        ..Requirements::default()
    };
    Ok(Question {
        report_data: args.report_data.as_deref().map(|text| bytes("report data", text)).transpose()?,
        host_data: args.host_data.as_deref().map(|text| bytes("host data", text)).transpose()?.map(host_data),
        requirements,
        at,
    })
}

fn measurement(text: &str) -> Result<Measurement, String> {
    Ok(Measurement(bytes("measurement", text)?))
}

fn host_data(bytes: [u8; 32]) -> HostData {
    if bytes == [0; 32] { HostData::Zero } else { HostData::Sha256(bytes) }
}

/// Exactly `N` bytes of hexadecimal: neither padded nor cut.
fn bytes<const N: usize>(name: &str, text: &str) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| format!("`{name}` has to be {} hexadecimal digits", 2 * N))?;
    Ok(bytes)
}
