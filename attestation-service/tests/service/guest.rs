//! The guest's side of the conversation, step by step, so that a test can break any one of them.

use jose::jwe::{EphemeralKey, Jwe};
use launch_evidence::simulated::SimulatedGuest;
use release_protocol::{
    AttestAnswer, Attestation, Challenge, Evidence, LeaseId, RuntimeData, TeePubKey, Workload, report_data,
};
use serde_json::json;

use crate::rig::{Answer, KEK, KEY_PATH, MANIFEST, Rig};

/// One guest's ephemeral key, and what it means to run.
pub(crate) struct Guest {
    pub(crate) key: EphemeralKey,
    pub(crate) license: Option<String>,
    pub(crate) workload: Option<Workload>,
}

impl Guest {
    /// A guest that wants to run the registered image under this licence.
    pub(crate) fn new(rig: &Rig, license: &str) -> Self {
        Self {
            key: EphemeralKey::generate().unwrap(),
            license: Some(license.to_owned()),
            workload: Some(Workload {
                manifest_digest: MANIFEST.to_owned(),
                signers: vec![rig.signer.verifying_key().thumbprint()],
                command: vec!["/bin/serve".to_owned()],
            }),
        }
    }

    pub(crate) fn lease_id(&self) -> LeaseId {
        LeaseId(self.key.thumbprint())
    }

    pub(crate) fn runtime_data(&self, nonce: &str) -> RuntimeData {
        RuntimeData {
            nonce: nonce.to_owned(),
            tee_pubkey: public(&self.key),
            license: self.license.clone(),
            workload: self.workload.clone(),
            lease: None,
            relay: None,
            offline: false,
            renewal: None,
        }
    }

    /// Challenge, evidence of the rig's guest, attestation.
    pub(crate) async fn attest(&self, rig: &Rig) -> Answer {
        let attestation = prove(&rig.guest, &self.runtime_data(&challenge(rig).await));
        attest(rig, &attestation).await
    }

    /// The same for a lease that is held already.
    pub(crate) async fn renew(&self, rig: &Rig) -> Answer {
        let mut runtime_data = self.runtime_data(&challenge(rig).await);
        runtime_data.lease = Some(self.lease_id());
        attest(rig, &prove(&rig.guest, &runtime_data)).await
    }

    /// Attests and must succeed.
    pub(crate) async fn start(&self, rig: &Rig) -> AttestAnswer {
        self.attest(rig).await.ok()
    }

    /// Asks for the image key and must get it.
    pub(crate) async fn open(&self, rig: &Rig, token: &str) {
        let answer = rig.resource(Some(token), KEY_PATH).await;
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let message = Jwe::parse(&answer.body).unwrap();
        assert_eq!(self.key.decrypt(&message).unwrap().as_slice(), KEK);
    }
}

/// The public half of an ephemeral key as runtime data carry it.
pub(crate) fn public(key: &EphemeralKey) -> TeePubKey {
    serde_json::from_value(serde_json::to_value(key.jwk()).unwrap()).unwrap()
}

pub(crate) async fn challenge(rig: &Rig) -> String {
    let request = json!({"version": "0.4.0", "tee": "snp", "extra-params": ""});
    rig.post("/kbs/v0/auth", &request).await.ok::<Challenge>().nonce
}

/// Evidence of `guest` over `runtime_data`.
pub(crate) fn prove(guest: &SimulatedGuest, runtime_data: &RuntimeData) -> Attestation {
    let runtime_data = runtime_data.to_members().unwrap();
    let primary_evidence = guest.evidence(&report_data(&runtime_data, "").unwrap()).unwrap();
    let tee_evidence = Evidence { primary_evidence, additional_evidence: String::new() };
    Attestation { init_data: None, runtime_data, tee_evidence }
}

pub(crate) async fn attest(rig: &Rig, attestation: &Attestation) -> Answer {
    rig.post("/kbs/v0/attest", attestation).await
}
