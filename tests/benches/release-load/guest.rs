//! One guest that starts: its ephemeral key, its evidence, its requests.

use jose::jwe::{EphemeralKey, Jwe};
use release_protocol::report_data;
use serde_json::{Map, Value, json};

use crate::stage::{KEY_ID, MANIFEST, PRODUCT, Stage, text};

/// How far a guest goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ask {
    /// Challenge, evidence with a licence, key: two entries of the log, one lease.
    Release,
    /// Challenge and evidence with a licence: one entry of the log, one lease.
    Lease,
    /// Challenge and evidence alone, as a stock client: nothing is written.
    Attest,
}

impl Ask {
    pub(crate) const ALL: [Self; 3] = [Self::Release, Self::Lease, Self::Attest];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Lease => "lease",
            Self::Attest => "attest",
        }
    }
}

/// A guest before its first request.
pub(crate) struct Guest {
    key: EphemeralKey,
    jwk: Value,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let key = EphemeralKey::generate().expect("key");
        let jwk = serde_json::to_value(key.jwk()).expect("key");
        Self { key, jwk }
    }

    /// Makes the requests and gives the last answer.
    pub(crate) async fn ask(&self, stage: &Stage, client: &reqwest::Client, ask: Ask) -> Value {
        let answer = self.attest(stage, client, ask).await;
        if ask != Ask::Release {
            return answer;
        }
        fetch_key(stage, client, &text(&answer, "token")).await
    }

    async fn attest(&self, stage: &Stage, client: &reqwest::Client, ask: Ask) -> Value {
        let request = json!({"version": "0.4.0", "tee": "snp", "extra-params": ""});
        let challenge = answer(client.post(format!("{}/kbs/v0/auth", stage.url)).json(&request)).await;
        let mut runtime_data = Map::new();
        runtime_data.insert("nonce".to_owned(), challenge["nonce"].clone());
        runtime_data.insert("tee-pubkey".to_owned(), self.jwk.clone());
        if ask != Ask::Attest {
            runtime_data.insert("license".to_owned(), stage.license.as_str().into());
            let workload = json!({"manifest_digest": MANIFEST, "signers": [stage.signer], "command": ["/bin/serve"]});
            runtime_data.insert("workload".to_owned(), workload);
        }
        let bound = report_data(&runtime_data, "").expect("report data");
        let evidence = stage.platform.evidence(&bound).expect("evidence");
        let attestation = json!({
            "init-data": null, "runtime-data": runtime_data,
            "tee-evidence": {"primary_evidence": evidence, "additional_evidence": ""},
        });
        answer(client.post(format!("{}/kbs/v0/attest", stage.url)).json(&attestation)).await
    }

    /// Decrypts the key that was released to it.
    pub(crate) fn open(&self, answer: &Value) -> Vec<u8> {
        let message = Jwe::parse(answer.to_string().as_bytes()).expect("JWE");
        self.key.decrypt(&message).expect("key").to_vec()
    }
}

/// Asks for the image key once more or for the first time.
pub(crate) async fn fetch_key(stage: &Stage, client: &reqwest::Client, token: &str) -> Value {
    let url = format!("{}/kbs/v0/resource/{PRODUCT}/image-key/{KEY_ID}", stage.url);
    answer(client.get(url).bearer_auth(token)).await
}

async fn answer(request: reqwest::RequestBuilder) -> Value {
    let answer = request.send().await.expect("service");
    let status = answer.status();
    let body = answer.bytes().await.expect("answer");
    assert!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}
