//! Endorsements that evidence lacks: from the operator's directory, from a key distribution service, and not from it more
//! often than it allows. And what the operator requires of every guest.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use attestation_service::EvidenceSettings;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use launch_evidence::MinimumTcb;
use launch_evidence::snp::Product;
use launch_evidence::snp::wanted::WantedEndorsement;
use release_protocol::Attestation;
use serde_json::Value;
use url::Url;

use crate::guest::{Guest, attest, challenge, prove};
use crate::rig::{Rig, platform};

/// A key distribution service in this process.
struct Distribution {
    url: Url,
    asked: Arc<Mutex<Vec<String>>>,
}

type Behaviour = (Arc<dyn Fn() -> Response + Send + Sync>, Arc<Mutex<Vec<String>>>);

impl Distribution {
    /// Answers every request for an endorsement key by `answer`.
    async fn start(answer: impl Fn() -> Response + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let behaviour: Behaviour = (Arc::new(answer), Arc::clone(&asked));
        let router = Router::new().fallback(answer_any).with_state(behaviour);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, asked }
    }

    fn settings(&self) -> EvidenceSettings {
        let mut settings = EvidenceSettings::default();
        settings.endorsements.distribution_service = self.url.clone();
        settings.endorsements.pause_seconds = 0;
        settings
    }

    /// The requests for endorsement keys; revocation lists are asked for beside them.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter(|path| !path.ends_with("/crl")).cloned().collect()
    }
}

async fn answer_any(State((answer, asked)): State<Behaviour>, uri: Uri) -> Response {
    let path = uri.path_and_query().unwrap().to_string();
    asked.lock().unwrap().push(path.clone());
    if path.ends_with("/crl") { StatusCode::NOT_FOUND.into_response() } else { answer() }
}

/// The rig's attestation without its endorsement key's certificate, and that certificate.
async fn bare(rig: &Rig, guest: &Guest) -> (Attestation, Vec<u8>) {
    let mut attestation = prove(&rig.guest, &guest.runtime_data(&challenge(rig).await));
    let chain = attestation.tee_evidence.primary_evidence["cert_chain"].as_array_mut().unwrap();
    let taken = chain.remove(0);
    (attestation, decode(&taken))
}

fn decode(text: &Value) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap()
}

fn roots() -> Vec<Vec<u8>> {
    vec![platform().ark_der().to_vec()]
}

fn simulated_endorsement() -> Vec<u8> {
    platform().endorsement_der().to_vec()
}

#[tokio::test]
async fn an_endorsement_in_the_operators_directory_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = EvidenceSettings::default();
    settings.endorsements.fetch = false;
    settings.endorsements.directory = Some(directory.path().to_owned());
    let rig = Rig::start_judging(roots(), settings).await;
    let license = rig.issue(|_| {}).await;
    let guest = Guest::new(&rig, &license.token);
    let (attestation, endorsement) = bare(&rig, &guest).await;
    let refused = attest(&rig, &attestation).await.problem(403, "evidence-rejected");
    assert!(refused.reasons[0].starts_with("certificate-form: "), "{:?}", refused.reasons);

    let wanted = WantedEndorsement::candidates(&attestation.tee_evidence.primary_evidence);
    let path: PathBuf = directory.path().join(wanted[0].relative_path());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, endorsement).unwrap();
    assert_eq!(attest(&rig, &attestation).await.status, 200);
}

#[tokio::test]
async fn an_endorsement_is_fetched_once_and_kept() {
    let distribution = Distribution::start(|| simulated_endorsement().into_response()).await;
    let rig = Rig::start_judging(roots(), distribution.settings()).await;
    let license = rig.issue(|new| new.seats = 3).await;
    for _ in 0..3 {
        let guest = Guest::new(&rig, &license.token);
        let (attestation, _) = bare(&rig, &guest).await;
        assert_eq!(attest(&rig, &attestation).await.status, 200);
    }
    let asked = distribution.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].starts_with("/vcek/v1/"), "{asked:?}");
}

#[tokio::test]
async fn what_another_signed_is_neither_used_nor_kept() {
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.der().to_vec();
    let distribution = Distribution::start(move || other.clone().into_response()).await;
    let rig = Rig::start_judging(roots(), distribution.settings()).await;
    let license = rig.issue(|_| {}).await;
    let (attestation, _) = bare(&rig, &Guest::new(&rig, &license.token)).await;
    attest(&rig, &attestation).await.problem(403, "evidence-rejected");
    let kept = rig.home.endorsements_path();
    assert!(!kept.exists(), "{}", kept.display());
}

#[tokio::test]
async fn a_service_that_is_asked_too_often_makes_the_guest_come_back_later() {
    let too_many = || (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "90")]).into_response();
    let distribution = Distribution::start(too_many).await;
    let rig = Rig::start_judging(roots(), distribution.settings()).await;
    let license = rig.issue(|_| {}).await;
    let (attestation, _) = bare(&rig, &Guest::new(&rig, &license.token)).await;
    let answer = attest(&rig, &attestation).await;
    let retry_after = answer.retry_after.unwrap();
    assert!((80..=90).contains(&retry_after), "{retry_after}");
    answer.problem(503, "unavailable");
    // The pause it asked for is kept: nothing goes out meanwhile.
    attest(&rig, &attestation).await.problem(503, "unavailable");
    assert_eq!(distribution.asked().len(), 1);
}

#[tokio::test]
async fn an_endorsement_that_does_not_exist_is_not_asked_for_again() {
    let distribution = Distribution::start(|| StatusCode::NOT_FOUND.into_response()).await;
    let rig = Rig::start_judging(roots(), distribution.settings()).await;
    let license = rig.issue(|_| {}).await;
    let (attestation, _) = bare(&rig, &Guest::new(&rig, &license.token)).await;
    for _ in 0..2 {
        attest(&rig, &attestation).await.problem(403, "evidence-rejected");
    }
    assert_eq!(distribution.asked().len(), 1);
}

#[tokio::test]
async fn a_guest_below_the_operators_minimum_tcb_is_refused() {
    let mut settings = EvidenceSettings::default();
    settings.endorsements.fetch = false;
    let high = MinimumTcb { snp: 255, ..MinimumTcb::default() };
    settings.requirements.minimum_tcb = Product::ALL.into_iter().map(|product| (product, high.clone())).collect();
    let rig = Rig::start_judging(roots(), settings).await;
    let license = rig.issue(|_| {}).await;
    let problem = Guest::new(&rig, &license.token).attest(&rig).await.problem(403, "evidence-rejected");
    assert!(problem.reasons[0].starts_with("tcb-minimum: "), "{:?}", problem.reasons);
}

#[tokio::test]
async fn a_service_that_demands_revocation_lists_refuses_without_one() {
    let mut settings = EvidenceSettings::default();
    settings.endorsements.fetch = false;
    settings.requirements.revocation = launch_evidence::Revocation::Require;
    let rig = Rig::start_judging(roots(), settings).await;
    let license = rig.issue(|_| {}).await;
    let problem = Guest::new(&rig, &license.token).attest(&rig).await.problem(403, "evidence-rejected");
    assert!(problem.reasons[0].starts_with("revocation: "), "{:?}", problem.reasons);
}
