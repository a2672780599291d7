//! Collateral of TDX quotes from a caching service: a real quote, its real collateral in the parts that such a service
//! hands out, put together again and judged by the real verifier.
#![expect(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

#[path = "../../crates/launch-evidence/tests/data/mod.rs"]
mod data;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use attestation_service::endorsement::{EndorsementSettings, Endorsements};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use launch_evidence::saved::{Question, judge};
use launch_evidence::tdx::{TdxVerifier, evidence_json};
use launch_evidence::{Requirements, TrustRoots};
use serde_json::Value;

/// A time at which the sample's collateral is current.
const NOW: i64 = 1_750_332_747;

type Service = (Arc<Value>, Arc<AtomicUsize>);

async fn answer(State((collateral, asked)): State<Service>, uri: Uri) -> Response {
    asked.fetch_add(1, Ordering::SeqCst);
    let text = |name: &str| collateral[name].as_str().expect("a text").to_owned();
    let signed = |member: &str, name: &str| {
        // The signature covers the text as it is: no other writer may touch it.
        format!(r#"{{"{member}":{},"signature":"{}"}}"#, text(name), text(&format!("{name}_signature")))
    };
    let chain = |name: &str| text(&format!("{name}_issuer_chain")).replace('\n', "%0A");
    let list = |name: &str| hex::decode(text(name)).expect("hexadecimal");
    match uri.path() {
        "/tdx/certification/v4/tcb" => {
            ([("TCB-Info-Issuer-Chain", chain("tcb_info"))], signed("tcbInfo", "tcb_info")).into_response()
        }
        "/tdx/certification/v4/qe/identity" => {
            let header = [("SGX-Enclave-Identity-Issuer-Chain", chain("qe_identity"))];
            (header, signed("enclaveIdentity", "qe_identity")).into_response()
        }
        "/sgx/certification/v4/pckcrl" => {
            ([("SGX-PCK-CRL-Issuer-Chain", chain("pck_crl"))], list("pck_crl")).into_response()
        }
        // In hexadecimal, as some caching services send it.
        "/sgx/certification/v4/rootcacrl" => text("root_ca_crl").into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn start(collateral: Value) -> (EndorsementSettings, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let router = Router::new().fallback(answer).with_state((Arc::new(collateral), Arc::clone(&asked)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let url = format!("http://{}/", listener.local_addr().expect("port"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let collateral_service = url.parse().expect("url");
    (EndorsementSettings { collateral_service, ..EndorsementSettings::default() }, asked)
}

#[tokio::test]
async fn a_quote_without_collateral_is_completed_once_and_then_verifies() {
    let samples = data::package("dcap-qvl").join("sample");
    let quote = data::read(&samples.join("tdx_quote"));
    let collateral = serde_json::from_slice(&data::read(&samples.join("tdx_quote_collateral.json"))).expect("JSON");
    let (settings, asked) = start(collateral).await;
    let kept = tempfile::tempdir().expect("directory");
    let endorsements = Endorsements::new(&settings, kept.path().join("kept")).expect("client");
    let (roots, now) = (TrustRoots::amd(), Timestamp::from_second(NOW).expect("a date"));

    let bare = evidence_json(&quote, None);
    let completed = endorsements.complete(bare.clone(), &roots, Timestamp::now()).await.expect("collateral");
    let question = Question { report_data: None, host_data: None, requirements: Requirements::default(), at: now };
    let refused = judge(&TdxVerifier::new(), &bare, &question);
    assert!(!refused.holds(), "without collateral");
    let answer = judge(&TdxVerifier::new(), &completed, &question);
    assert!(answer.holds(), "{:#?}", answer.failures().collect::<Vec<_>>());

    let again = endorsements.complete(bare, &roots, Timestamp::now()).await.expect("collateral");
    assert_eq!(completed, again);
    assert_eq!(asked.load(Ordering::SeqCst), 4, "one request a part");
}

#[tokio::test]
async fn a_platform_that_is_not_known_stays_without() {
    let quote = data::read(&data::package("dcap-qvl").join("sample/tdx_quote"));
    let (mut settings, _) = start(Value::Null).await;
    settings.collateral_service = settings.collateral_service.join("/elsewhere/").expect("url");
    let kept = tempfile::tempdir().expect("directory");
    let endorsements = Endorsements::new(&settings, kept.path().to_owned()).expect("client");
    let bare = evidence_json(&quote, None);
    let same = endorsements.complete(bare.clone(), &TrustRoots::amd(), Timestamp::now()).await.expect("nothing");
    assert_eq!(same, bare);
}
