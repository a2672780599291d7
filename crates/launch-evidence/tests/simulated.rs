//! The simulated platform as its users see it: a directory, a launch, a socket, evidence, a verdict.
#![expect(clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{Span, Timestamp};
use launch_evidence::measure::LaunchInput;
use launch_evidence::simulated::{
    self, LaunchOptions, PlatformOptions, SimulatedAttester, SimulatedError, SimulatedPlatform, SimulatedServer,
};
use launch_evidence::snp::wanted::WantedEndorsement;
use launch_evidence::{
    Attester as _, AttesterError, CheckName, Expected, HostData, Product, Requirements, SampleAttester, SnpVerifier,
    TrustRoots, Verifier as _,
};
use serde_json::{Value, json};
use sev::certs::snp::{Certificate, Verifiable as _};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser as _;

/// The directory of a platform that all tests of this process share.
fn platform() -> SimulatedPlatform {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a folder");
        SimulatedPlatform::create(&dir.path().join("platform")).expect("a platform");
        dir
    });
    SimulatedPlatform::open(&dir.path().join("platform")).expect("a platform")
}

/// Firmware, kernel and an initrd in `folder`.
fn input(folder: &Path, initrd: &[u8]) -> LaunchInput {
    let write = |name: &str, content: &[u8]| -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, content).expect("a file");
        path
    };
    let vcpu_type = "EPYC-Genoa".parse().expect("a type");
    let mut input = LaunchInput::new(write("firmware", &simulated::firmware()), 2, vcpu_type);
    input.kernel = Some(write("kernel", &simulated::kernel()));
    input.initrd = Some(write("initrd", initrd));
    input.append = Some("console=ttyS0".to_owned());
    input
}

fn expected(report_data: [u8; 64]) -> Expected {
    Expected { report_data, host_data: HostData::Zero, requirements: Requirements::default(), now: Timestamp::now() }
}

fn verifier(platform: &SimulatedPlatform) -> SnpVerifier {
    SnpVerifier::new(TrustRoots::amd().with_simulated(platform.ark_der()).expect("a simulated root"))
}

#[test]
fn a_served_guest_is_attested_and_marked_simulated() {
    let (platform, folder) = (platform(), tempfile::tempdir().expect("a folder"));
    let input = input(folder.path(), b"the shim");
    let guest = platform.launch(&input, LaunchOptions::default()).expect("a guest");
    let server = SimulatedServer::start(&folder.path().join("guest.sock"), guest).expect("a server");
    let attester = SimulatedAttester::connect(server.path()).expect("an attester");
    assert_eq!((attester.tee(), attester.is_simulated()), ("snp", true));

    for byte in [1, 2] {
        let primary = attester.evidence(&[byte; 64]).expect("evidence");
        assert_eq!(primary["simulated"], json!(true));
        let evidence = verifier(&platform).verify(&primary, &expected([byte; 64])).expect("verified evidence");
        assert!(evidence.is_simulated());
        assert_eq!(evidence.measurement(), input.measure().expect("a digest"));
        assert_eq!(evidence.chip_id(), platform.chip_id());
    }
}

#[test]
fn a_verifier_of_hardware_refuses_it() {
    let (platform, folder) = (platform(), tempfile::tempdir().expect("a folder"));
    let guest = platform.launch(&input(folder.path(), b"the shim"), LaunchOptions::default()).expect("a guest");
    let mut primary = guest.evidence(&[1; 64]).expect("evidence");
    // Whether it admits to be simulated or not.
    for claim in [json!(true), json!(false), Value::Null] {
        primary["simulated"] = claim;
        let rejected = SnpVerifier::new(TrustRoots::amd()).verify(&primary, &expected([1; 64])).expect_err("simulated");
        let failed: Vec<CheckName> = rejected.failures().map(|check| check.name).collect();
        assert_eq!(failed, [CheckName::TrustRoot]);
        assert!(rejected.to_string().contains("simulated platform's root"), "{rejected}");
        // Where it is accepted, the root marks it, not the member.
        let evidence = verifier(&platform).verify(&primary, &expected([1; 64])).expect("verified evidence");
        assert!(evidence.is_simulated());
    }
}

#[test]
fn one_byte_of_the_initrd_makes_another_launch() {
    let (platform, folder) = (platform(), tempfile::tempdir().expect("a folder"));
    let mut measurements = Vec::new();
    for initrd in [b"the shim", b"the shin"] {
        let guest = platform.launch(&input(folder.path(), initrd), LaunchOptions::default()).expect("a guest");
        let primary = guest.evidence(&[1; 64]).expect("evidence");
        let mut expected = expected([1; 64]);
        expected.requirements.measurements = measurements.clone();
        match verifier(&platform).verify(&primary, &expected) {
            Ok(evidence) => measurements.push(evidence.measurement()),
            Err(rejected) => {
                let failed: Vec<CheckName> = rejected.failures().map(|check| check.name).collect();
                assert_eq!(failed, [CheckName::Measurement]);
                assert_eq!(measurements.len(), 1, "the second launch is refused, not the first");
                return;
            }
        }
    }
    assert_eq!(measurements.len(), 1, "the changed initrd was accepted");
}

#[test]
fn what_the_host_chooses_is_in_the_report() {
    let (platform, folder) = (platform(), tempfile::tempdir().expect("a folder"));
    let input = input(folder.path(), b"the shim");
    for report_version in [2, 3, 5] {
        let options = LaunchOptions {
            report_version,
            host_data: [9; 32],
            policy: 0xB_0000,
            vmpl: 1,
            guest_svn: 4,
            ..LaunchOptions::default()
        };
        let guest = platform.launch(&input, options).expect("a guest");
        let primary = guest.evidence(&[1; 64]).expect("evidence");
        let mut expected = expected([1; 64]);
        expected.host_data = HostData::Sha256([9; 32]);
        expected.requirements.vmpl = 1;
        expected.requirements.allow_debug = true;
        let evidence = verifier(&platform).verify(&primary, &expected).expect("verified evidence");
        let claims = evidence.claims().snp().expect("claims of SNP");
        assert_eq!((claims.report_version, claims.vmpl, claims.guest_svn), (report_version, 1, 4));
        assert!(claims.policy.debug);
    }
    for report_version in [0, 1, 4, 6] {
        let options = LaunchOptions { report_version, ..LaunchOptions::default() };
        assert!(
            matches!(platform.launch(&input, options), Err(SimulatedError::Version(found)) if found == report_version)
        );
    }
}

#[test]
fn the_sev_crate_verifies_it_too() {
    for product in Product::ALL {
        let folder = tempfile::tempdir().expect("a folder");
        let not_before = Timestamp::now().checked_sub(Span::new().hours(1)).expect("a date");
        let options = PlatformOptions { product, not_before };
        let platform = SimulatedPlatform::create_with(folder.path(), options).expect("a platform");
        let guest = platform.launch(&input(folder.path(), b"the shim"), LaunchOptions::default()).expect("a guest");
        let primary = guest.evidence(&[1; 64]).expect("evidence");
        let evidence = verifier(&platform).verify(&primary, &expected([1; 64])).expect("verified evidence");
        assert_eq!(evidence.claims().snp().expect("claims of SNP").product, product);

        let chain = primary["cert_chain"].as_array().expect("a list");
        let certificate = |der: &[u8]| Certificate::from_der(der).expect("a certificate");
        let from_evidence = |index: usize| {
            let text = chain.get(index).and_then(Value::as_str).expect("a certificate");
            certificate(&STANDARD.decode(text).expect("base64"))
        };
        let (vek, ask, ark) = (from_evidence(0), from_evidence(1), certificate(platform.ark_der()));
        (&ark, &ark).verify().expect("self-signed");
        (&ark, &ask).verify().expect("signed by the root");
        (&ask, &vek).verify().expect("signed by the intermediate");
        let raw = guest.report(&[1; 64]).expect("a report");
        let report = AttestationReport::from_bytes(&raw).expect("a report");
        (&vek, &report).verify().expect("signed by the endorsement key");
    }
}

#[test]
fn the_directory_keeps_its_keys_private() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("deep/platform");
    let made = SimulatedPlatform::create(&dir).expect("a platform");
    let opened = SimulatedPlatform::open(&dir).expect("a platform");
    assert_eq!(made.ark_der(), opened.ark_der());
    assert_eq!((made.chip_id(), made.product()), (opened.chip_id(), opened.product()));
    for name in ["ark.key", "ask.key", "vcek.key"] {
        let permissions = fs::metadata(dir.join(name)).expect("a file").permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600, "{name}");
    }
    assert!(matches!(SimulatedPlatform::create(&dir), Err(SimulatedError::Exists(_))));
    // A creation that was interrupted left no description.
    fs::remove_file(dir.join("platform.json")).expect("a file");
    assert!(matches!(SimulatedPlatform::open(&dir), Err(SimulatedError::NoPlatform(_))));
    assert!(matches!(SimulatedPlatform::create(&dir), Err(SimulatedError::Exists(_))));
    fs::write(dir.join("platform.json"), "{}").expect("a file");
    assert!(matches!(SimulatedPlatform::open(&dir), Err(SimulatedError::Malformed { .. })));
    assert!(matches!(SimulatedPlatform::open(folder.path()), Err(SimulatedError::NoPlatform(_))));
    // Nothing that is printed shows a key.
    assert!(!format!("{made:?}").contains("PRIVATE"));
}

#[test]
fn the_socket_answers_lines_and_refuses_others() {
    let (platform, folder) = (platform(), tempfile::tempdir().expect("a folder"));
    let launch = || platform.launch(&input(folder.path(), b"the shim"), LaunchOptions::default()).expect("a guest");
    let path = folder.path().join("guest.sock");
    // A socket that nobody serves any more is replaced.
    drop(UnixListener::bind(&path).expect("a socket"));
    let server = SimulatedServer::start(&path, launch()).expect("a server");
    assert_eq!(fs::metadata(&path).expect("a socket").permissions().mode() & 0o777, 0o600);
    assert!(matches!(SimulatedServer::start(&path, launch()), Err(SimulatedError::SocketInUse(_))));

    // Several requests on one connection; what is wrong is answered, and the connection goes on.
    let connection = UnixStream::connect(&path).expect("a connection");
    let mut answers = BufReader::new(&connection).lines();
    let report_data = "5a".repeat(64);
    for (request, member) in [
        (format!("{{\"report_data\":\"{report_data}\"}}"), "evidence"),
        ("{}".to_owned(), "error"),
        ("not JSON".to_owned(), "error"),
        ("{\"report_data\":\"5a\"}".to_owned(), "error"),
        ("{\"derive\":\"key\"}".to_owned(), "derived_key"),
        ("{\"derive\":\"another\"}".to_owned(), "error"),
        (format!("{{\"report_data\":\"{report_data}\",\"more\":1}}"), "error"),
        (format!("{{\"report_data\":\"{report_data}\"}}"), "evidence"),
        ("x".repeat(300), "error"),
    ] {
        // In one piece: the server hangs up on a line that is too long, and a second piece would find nobody.
        (&connection).write_all(format!("{request}\n").as_bytes()).expect("a written request");
        let answer: Value = serde_json::from_str(&answers.next().expect("an answer").expect("a line")).expect("JSON");
        assert!(answer.get(member).is_some(), "{request}: {answer}");
    }
    // A line that is too long ends the connection.
    assert!(answers.next().is_none_or(|line| line.is_err()));

    drop(server);
    assert!(!path.exists(), "the socket is removed");
    assert!(matches!(SimulatedAttester::connect(&path), Err(AttesterError::Missing { .. })));
}

#[test]
fn a_launch_has_a_key_of_its_own_that_the_same_launch_gets_again_and_no_other() {
    let (platform, folder) = (platform(), tempfile::tempdir().expect("a folder"));
    let key = |platform: &SimulatedPlatform, initrd: &[u8], options, context| {
        let path = folder.path().join("guest.sock");
        let guest = platform.launch(&input(folder.path(), initrd), options).expect("a guest");
        let _server = SimulatedServer::start(&path, guest).expect("a server");
        *SimulatedAttester::connect(&path).expect("a guest").derived_key(context).expect("a key").expose()
    };
    let usual = key(&platform, b"the shim", LaunchOptions::default(), "one");
    assert_eq!(usual, key(&platform, b"the shim", LaunchOptions::default(), "one"));
    assert_ne!(usual, key(&platform, b"another shim", LaunchOptions::default(), "one"), "another measurement");
    let debug = LaunchOptions { policy: LaunchOptions::default().policy | 1 << 19, ..LaunchOptions::default() };
    assert_ne!(usual, key(&platform, b"the shim", debug, "one"), "another policy");
    assert_ne!(usual, key(&platform, b"the shim", LaunchOptions::default(), "two"), "another purpose");
    let other = tempfile::tempdir().expect("a folder");
    let other = SimulatedPlatform::create(&other.path().join("platform")).expect("a platform");
    assert_ne!(usual, key(&other, b"the shim", LaunchOptions::default(), "one"), "another chip");
    assert!(matches!(SampleAttester.derived_key("one"), Err(AttesterError::NoDerivedKey { tee: "sample" })));
}

#[test]
fn the_generated_firmware_and_kernel_never_change() {
    assert_eq!(simulated::firmware(), simulated::firmware());
    let folder = tempfile::tempdir().expect("a folder");
    let mut input = input(folder.path(), b"the shim");
    let measured = input.measure().expect("a digest").to_string();
    assert_eq!(measured, MEASUREMENT);
    input.vcpus = 1;
    assert_ne!(input.measure().expect("a digest").to_string(), MEASUREMENT);
}

/// What sev-snp-measure 0.0.13 gives for the same files. Another value would change every reference value in
/// use.
const MEASUREMENT: &str =
    "a4bea30437d7e846efe53e1423b2e3b444253de5e3a898e39db3ce19b984abe74f1cb948d8a7e152e9c91bf588c4a7dd";

#[test]
fn only_the_endorsement_that_is_wanted_is_worth_keeping() {
    let platform = platform();
    let folder = tempfile::tempdir().expect("a folder");
    let guest = platform.launch(&input(folder.path(), b"shim"), LaunchOptions::default()).expect("a guest");
    let mut evidence = guest.evidence(&[7; 64]).expect("evidence");
    let chain = evidence["cert_chain"].as_array_mut().expect("a list");
    chain.remove(0);
    let roots = TrustRoots::amd().with_simulated(platform.ark_der()).expect("a simulated root");
    let wanted = WantedEndorsement::candidates(&evidence).pop().expect("one");
    let endorsement = platform.endorsement_der();
    assert!(roots.endorse(endorsement, &wanted, &evidence));
    let mut other = wanted.clone();
    other.chip_id.0[0] ^= 1;
    assert!(!roots.endorse(endorsement, &other, &evidence), "another chip's");
    let mut other = wanted.clone();
    other.reported_tcb[0] ^= 1;
    assert!(!roots.endorse(endorsement, &other, &evidence), "another TCB's");
    assert!(!roots.endorse(platform.ark_der(), &wanted, &evidence), "no endorsement key's");
    assert!(!TrustRoots::amd().endorse(endorsement, &wanted, &evidence), "another root's");
}
