//! Evidence that is right in everything but one thing, and the check that must say so: a simulated chip signs
//! the paravisor's report, a generated key the vTPM's quote.

mod form;

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::evidence::Evidence;
use super::hcl::Hcl;
use super::quote::Attested;
use super::*;
use crate::identity::Measurement;
use crate::saved::{Question, judge};
use crate::simulated::{LaunchOptions, SimulatedGuest, SimulatedPlatform};
use crate::verifier::Requirements;

fn platform() -> &'static SimulatedPlatform {
    static PLATFORM: OnceLock<SimulatedPlatform> = OnceLock::new();
    PLATFORM.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        SimulatedPlatform::create(&folder.path().join("platform")).unwrap()
    })
}

fn ak() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}

type Edit<T> = Option<Box<dyn FnOnce(&mut T)>>;

/// Valid evidence in parts. Each edit comes before what covers it is made.
#[derive(Default)]
struct Case {
    runtime: Edit<Value>,
    report: Edit<[u8; 1184]>,
    hcl: Edit<Vec<u8>>,
    message: Edit<Message>,
    pcrs: Edit<[[u8; 32]; 24]>,
    primary: Edit<Value>,
    expected: Edit<Expected>,
}

struct Message {
    magic: u32,
    nonce: Vec<u8>,
    selection: Vec<u8>,
    pcr_digest: Vec<u8>,
    trailing: Vec<u8>,
}

impl Message {
    fn bytes(&self) -> Vec<u8> {
        let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat();
        [
            &self.magic.to_be_bytes()[..],
            &[0x80, 0x18],
            &sized(b"signer"),
            &sized(&self.nonce),
            &[0; 8],
            &[0, 0, 0, 7],
            &[0; 5],
            &9_u64.to_be_bytes(),
            &self.selection,
            &sized(&self.pcr_digest),
            &self.trailing,
        ]
        .concat()
    }
}

fn edit<T>(edit: Edit<T>, value: &mut T) {
    if let Some(edit) = edit {
        edit(value);
    }
}

fn hcl(report: &[u8], runtime: &[u8]) -> Vec<u8> {
    let len = u32::try_from(runtime.len()).unwrap();
    let numbers = |numbers: &[u32]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    [
        b"HCLA",
        &numbers(&[1, 32 + 1184 + 20 + len, 2, 0, 0, 0, 0])[..],
        report,
        &numbers(&[20 + len, 1, 2, 1, len]),
        runtime,
        &[0; 100],
    ]
    .concat()
}

impl Case {
    fn verify(self) -> Result<VerifiedEvidence, Vec<CheckName>> {
        let (verifier, primary, expected) = self.build();
        verifier.verify(&primary, &expected).map_err(|rejected| rejected.failures().map(|check| check.name).collect())
    }

    fn build(self) -> (AzSnpVtpmVerifier, Value, Expected) {
        let key = ak().public_key();
        let n = URL_SAFE_NO_PAD.encode(key.modulus().big_endian_without_leading_zero());
        let mut runtime = json!({
            "keys": [{"kid": "HCLAkPub", "kty": "RSA", "n": n, "e": "AQAB"}, {"kid": "HCLEkPub", "kty": "RSA"}],
            "vm-configuration": {"secure-boot": true},
        });
        edit(self.runtime, &mut runtime);
        let runtime = runtime.to_string().into_bytes();

        let chip = Arc::clone(&platform().chip);
        let vcek = chip.chain.first().unwrap().clone();
        let ask = chip.chain.get(1).unwrap().clone();
        let guest = SimulatedGuest::launch(chip, Measurement([0xA1; 48]), LaunchOptions::default()).unwrap();
        let mut report_data = [0; 64];
        report_data[..32].copy_from_slice(digest(&SHA256, &runtime).as_ref());
        let mut report = guest.report(&report_data).unwrap();
        edit(self.report, &mut report);
        guest.sign(&mut report).unwrap();
        let mut hcl = hcl(&report, &runtime);
        edit(self.hcl, &mut hcl);

        let mut pcrs = [[3; 32]; 24];
        pcrs[8] = digest(&SHA256, &[[0; 32], [0xD1; 32]].concat()).as_ref().try_into().unwrap();
        let mut message = Message {
            magic: 0xFF54_4347,
            nonce: vec![0x5A; 48],
            selection: vec![0, 0, 0, 1, 0, 0x0B, 3, 0xFF, 0xFF, 0xFF],
            pcr_digest: digest(&SHA256, pcrs.as_flattened()).as_ref().to_vec(),
            trailing: Vec::new(),
        };
        edit(self.message, &mut message);
        edit(self.pcrs, &mut pcrs);
        let message = message.bytes();
        let mut signature = vec![0; 256];
        ak().sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature).unwrap();

        let mut primary = json!({
            "version": 1,
            "hcl_report": URL_SAFE.encode(hcl),
            "tpm_quote": {
                "message": hex::encode(message),
                "signature": hex::encode(signature),
                "pcrs": pcrs.map(hex::encode),
            },
            "vcek": URL_SAFE.encode(vcek),
        });
        edit(self.primary, &mut primary);
        let mut report_data = [0; 64];
        report_data[..48].fill(0x5A);
        let mut expected = Expected {
            report_data,
            host_data: HostData::Sha256([0xD1; 32]),
            requirements: Requirements::default(),
            now: Timestamp::now(),
        };
        edit(self.expected, &mut expected);
        let roots = TrustRoots::amd().with_simulated(platform().ark_der()).unwrap().with_intermediate(&ask).unwrap();
        let verifier = AzSnpVtpmVerifier::new(roots);
        assert!(verifier.recognises(&primary));
        (verifier, primary, expected)
    }
}

#[track_caller]
fn fails_only(name: CheckName, case: Case) {
    assert_eq!(case.verify().err().unwrap_or_default(), [name]);
}

#[expect(clippy::unnecessary_wraps, reason = "as the fields have it")]
fn boxed<T>(edit: impl FnOnce(&mut T) + 'static) -> Edit<T> {
    Some(Box::new(edit))
}

#[test]
fn evidence_that_is_right_in_everything_is_verified() {
    let evidence = Case::default().verify().unwrap();
    assert!(evidence.is_simulated());
    let claims = serde_json::to_value(evidence.claims()).unwrap();
    assert_eq!(claims["tee"], "az-snp-vtpm");
    assert_eq!(claims["hcl_measurement"], "a1".repeat(48));
    assert!(claims.get("measurement").is_none(), "the paravisor's measurement is not the guest's");
    assert_eq!(claims["pcrs"][0], "03".repeat(32));
    assert_eq!(claims["pcrs"].as_array().unwrap().len(), 24);
    assert_eq!((&claims["reset_count"], &claims["vtpm_firmware_version"]), (&json!(7), &json!(9)));
    assert_eq!(claims["vm_configuration"]["secure-boot"], true);
    assert_eq!(claims["policy"]["debug"], false);
}

#[test]
fn saved_evidence_with_host_data_is_refused_though_nobody_asked() {
    let edit = |report: &mut [u8; 1184]| report[0xC0] = 1;
    let (verifier, primary, expected) = Case { report: boxed(edit), ..Case::default() }.build();
    let (requirements, at) = (expected.requirements, expected.now);
    let question = Question { report_data: None, host_data: None, requirements, at };
    let failed: Vec<CheckName> = judge(&verifier, &primary, &question).failures().map(|check| check.name).collect();
    assert_eq!(failed, [CheckName::HostData]);
    let (verifier, primary, _) = Case::default().build();
    assert!(judge(&verifier, &primary, &question).holds());
}

#[test]
fn without_initialisation_data_the_register_is_a_claim_only() {
    let case =
        Case { expected: boxed(|expected: &mut Expected| expected.host_data = HostData::Zero), ..Case::default() };
    assert!(case.verify().is_ok());
}

#[test]
fn the_checks_of_snp_are_made_on_the_inner_report() {
    let report = |offset: usize, byte: u8| Case {
        report: boxed(move |report: &mut [u8; 1184]| report[offset] = byte),
        ..Case::default()
    };
    fails_only(CheckName::Vmpl, report(0x30, 1));
    fails_only(CheckName::Debug, report(0x0A, 0x0B));
    fails_only(CheckName::HostData, report(0xC0, 1));
    fails_only(CheckName::HardwareId, report(0x1A0, 0xEE));
}

#[test]
fn the_report_binds_the_runtime_data_whole() {
    let runtime_byte = Case {
        // Another letter of the configuration, behind the keys.
        hcl: boxed(|hcl: &mut Vec<u8>| {
            let at = hcl.windows(6).position(|window| window == b"secure").unwrap();
            hcl[at] = b'S';
        }),
        ..Case::default()
    };
    fails_only(CheckName::RuntimeData, runtime_byte);
    let padding = Case { report: boxed(|report: &mut [u8; 1184]| report[0x50 + 63] = 1), ..Case::default() };
    fails_only(CheckName::RuntimeData, padding);
}

#[test]
fn the_form_of_the_hcl_report_is_exact() {
    let edits: [fn(&mut Vec<u8>); 13] = [
        |hcl| hcl[0] = b'h',
        |hcl| hcl[4] = 3,
        |hcl| hcl[8] ^= 1,
        |hcl| hcl[12] = 3,
        |hcl| hcl[16] = 1,
        |hcl| hcl[20] = 1,
        |hcl| hcl[0x4C0] ^= 1,
        |hcl| hcl[0x4C4] = 2,
        |hcl| hcl[0x4C8] = 4,
        |hcl| hcl[0x4CC] = 2,
        |hcl| hcl[0x4D0] ^= 1,
        |hcl| hcl.push(1),
        |hcl| hcl.truncate(0x4D4),
    ];
    for hcl in edits {
        fails_only(CheckName::HclForm, Case { hcl: boxed(hcl), ..Case::default() });
    }
    let keys: [fn(&mut Value); 6] = [
        |runtime| runtime["keys"] = json!([]),
        |runtime| runtime["keys"][0]["kid"] = json!("HCLEkPub"),
        |runtime| runtime["keys"][1]["kid"] = json!("HCLAkPub"),
        |runtime| runtime["keys"][0]["e"] = json!("Aw"),
        |runtime| runtime["keys"][0]["n"] = json!("AQAB"),
        |runtime| *runtime = json!([]),
    ];
    for runtime in keys {
        fails_only(CheckName::HclForm, Case { runtime: boxed(runtime), ..Case::default() });
    }
}

#[test]
fn the_quote_is_signed_by_the_key_that_the_paravisor_names() {
    let other = |runtime: &mut Value| {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let n = key.public_key().modulus().big_endian_without_leading_zero().to_vec();
        runtime["keys"][0]["n"] = json!(URL_SAFE_NO_PAD.encode(n));
    };
    fails_only(CheckName::AkSignature, Case { runtime: boxed(other), ..Case::default() });
    let changed = |primary: &mut Value| {
        let signature = primary["tpm_quote"]["signature"].as_str().unwrap();
        let first = if signature.starts_with('0') { "1" } else { "0" };
        primary["tpm_quote"]["signature"] = json!(format!("{first}{}", &signature[1..]));
    };
    fails_only(CheckName::AkSignature, Case { primary: boxed(changed), ..Case::default() });
}

#[test]
fn what_the_key_signed_must_be_a_quote() {
    let edits: [fn(&mut Message); 3] = [
        |message| message.magic = 1,
        |message| message.trailing = vec![0],
        |message| message.selection = vec![0, 0, 0, 99],
    ];
    for message in edits {
        fails_only(CheckName::QuoteForm, Case { message: boxed(message), ..Case::default() });
    }
}

#[test]
fn the_quote_is_bound_to_the_callers_data() {
    let nonces: [fn(&mut Message); 3] = [
        |message| message.nonce[47] ^= 1,
        |message| message.nonce.truncate(47),
        |message| message.nonce = [vec![0x5A; 48], vec![0; 17]].concat(),
    ];
    for message in nonces {
        fails_only(CheckName::Nonce, Case { message: boxed(message), ..Case::default() });
    }
    let padded = |message: &mut Message| message.nonce.resize(64, 0);
    assert!(Case { message: boxed(padded), ..Case::default() }.verify().is_ok(), "padded as the expected data are");
}

#[test]
fn every_register_is_quoted() {
    let pcrs = |pcrs: &mut [[u8; 32]; 24]| pcrs[23][31] ^= 1;
    fails_only(CheckName::PcrDigest, Case { pcrs: boxed(pcrs), ..Case::default() });
    let selections: [fn(&mut Message); 3] = [
        |message| message.selection[9] = 0x7F,
        |message| message.selection[5] = 0x0C,
        |message| message.selection = vec![0, 0, 0, 0],
    ];
    for message in selections {
        fails_only(CheckName::PcrDigest, Case { message: boxed(message), ..Case::default() });
    }
}

#[test]
fn initialisation_data_are_bound_by_a_register() {
    let other = |expected: &mut Expected| expected.host_data = HostData::Sha256([1; 32]);
    fails_only(CheckName::InitData, Case { expected: boxed(other), ..Case::default() });
}
