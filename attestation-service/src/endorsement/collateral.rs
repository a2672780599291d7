//! Collateral of TDX platforms from a PCCS-compatible service (Intel PCS API version 4): TCB information, the quoting
//! enclave's identity and revocation lists, each signed by Intel. Put together here, judged by the verifier.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use url::Url;

use super::DistributionError;

/// Where Intel has its root's revocation list, which its own service does not hand out.
const ROOT_LIST: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";
/// The largest answer, in bytes.
const ANSWER_MAX: usize = 256 * 1024;

/// A client of the service.
#[derive(Debug)]
pub(super) struct CollateralService {
    http: reqwest::Client,
    base: Url,
    /// One platform's collateral is fetched at a time: whoever waited looks first.
    turn: tokio::sync::Mutex<()>,
}

/// A part that is signed as the text that it is.
#[derive(Deserialize)]
struct TcbInfo {
    #[serde(rename = "tcbInfo")]
    info: Box<RawValue>,
    signature: String,
}

#[derive(Deserialize)]
struct EnclaveIdentity {
    #[serde(rename = "enclaveIdentity")]
    identity: Box<RawValue>,
    signature: String,
}

/// An answer's body and the issuers' certificates from its header.
struct Answer {
    body: Vec<u8>,
    issuers: Option<String>,
}

impl CollateralService {
    pub(super) fn new(base: Url) -> Result<Self, DistributionError> {
        // One provider for all TLS of the process; where there is one already this changes nothing.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(15))
            .build();
        Ok(Self { http: http.map_err(DistributionError::Client)?, base, turn: tokio::sync::Mutex::default() })
    }

    /// The collateral of a kind of platform (FMSPC) whose certificates that authority issues; `None` when Intel knows
    /// none. `look` finds what another request has brought meanwhile.
    pub(super) async fn fetch(
        &self,
        fmspc: &str,
        authority: &str,
        look: impl Fn() -> Option<Value>,
    ) -> Result<Option<Value>, DistributionError> {
        let _turn = self.turn.lock().await;
        if let Some(found) = look() {
            return Ok(Some(found));
        }
        let tcb = format!("tdx/certification/v4/tcb?fmspc={fmspc}");
        let lists = format!("sgx/certification/v4/pckcrl?ca={authority}&encoding=der");
        let Some(tcb) = self.ask(&tcb, &["TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"]).await? else {
            return Ok(None);
        };
        let Some(enclave) =
            self.ask("tdx/certification/v4/qe/identity", &["SGX-Enclave-Identity-Issuer-Chain"]).await?
        else {
            return Ok(None);
        };
        let Some(list) = self.ask(&lists, &["SGX-PCK-CRL-Issuer-Chain"]).await? else { return Ok(None) };
        let root_list = match self.ask("sgx/certification/v4/rootcacrl", &[]).await? {
            Some(answer) => Some(answer),
            None => self.ask(ROOT_LIST, &[]).await?,
        };
        let Some(root_list) = root_list else { return Ok(None) };
        assemble(&tcb, &enclave, &list, &root_list).map(Some)
    }

    async fn ask(&self, path: &str, issuers: &[&str]) -> Result<Option<Answer>, DistributionError> {
        let Ok(url) = self.base.join(path) else { return Ok(None) };
        let mut answer = self.http.get(url).send().await.map_err(DistributionError::Network)?;
        match answer.status() {
            StatusCode::NOT_FOUND => return Ok(None),
            status if !status.is_success() => return Err(DistributionError::Status(status)),
            _ => {}
        }
        let header = issuers.iter().find_map(|name| answer.headers().get(*name)?.to_str().ok());
        let issuers = header.map(percent_decoded);
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(DistributionError::Network)? {
            if body.len() + chunk.len() > ANSWER_MAX {
                return Err(DistributionError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Some(Answer { body, issuers }))
    }
}

/// The one document that verifiers read.
fn assemble(tcb: &Answer, enclave: &Answer, list: &Answer, root_list: &Answer) -> Result<Value, DistributionError> {
    let malformed = |_| DistributionError::Malformed;
    let info: TcbInfo = serde_json::from_slice(&tcb.body).map_err(malformed)?;
    let identity: EnclaveIdentity = serde_json::from_slice(&enclave.body).map_err(malformed)?;
    let issuers = |answer: &Answer| answer.issuers.clone().ok_or(DistributionError::Malformed);
    Ok(json!({
        "tcb_info": info.info.get(), "tcb_info_signature": info.signature, "tcb_info_issuer_chain": issuers(tcb)?,
        "qe_identity": identity.identity.get(), "qe_identity_signature": identity.signature,
        "qe_identity_issuer_chain": issuers(enclave)?,
        "pck_crl": hexadecimal(&list.body), "pck_crl_issuer_chain": issuers(list)?,
        "root_ca_crl": hexadecimal(&root_list.body),
    }))
}

/// A list as hexadecimal: some services send that, others DER.
fn hexadecimal(body: &[u8]) -> String {
    let text = body.trim_ascii();
    if !text.is_empty() && text.iter().all(u8::is_ascii_hexdigit) {
        return String::from_utf8_lossy(text).to_lowercase();
    }
    hex::encode(body)
}

/// A header's value with its `%XX` read; what is no such pair stays.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).filter(|_| *first == b'%').and_then(|pair| {
            let mut byte = [0];
            hex::decode_to_slice(pair, &mut byte).ok().map(|()| byte[0])
        });
        bytes.push(pair.unwrap_or(*first));
        rest = if pair.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_parts_keep_their_very_text() {
        let answer = |body: &str, issuers: Option<&str>| Answer {
            body: body.as_bytes().to_vec(),
            issuers: issuers.map(ToOwned::to_owned),
        };
        let tcb = answer(r#"{"tcbInfo":{"fmspc":"00", "z":1,"a" : 2},"signature":"ab"}"#, Some("issuers of tcb"));
        let enclave = answer(r#"{"enclaveIdentity":{"b":1,"a":2},"signature":"cd"}"#, Some("issuers of qe"));
        let made = assemble(&tcb, &enclave, &answer("3082", Some("issuers of list")), &answer("\u{1}", None)).unwrap();
        assert_eq!(made["tcb_info"], r#"{"fmspc":"00", "z":1,"a" : 2}"#);
        assert_eq!(made["qe_identity"], r#"{"b":1,"a":2}"#);
        assert_eq!((&made["pck_crl"], &made["root_ca_crl"]), (&json!("3082"), &json!("01")));
        let without = assemble(&answer("{}", None), &enclave, &tcb, &tcb);
        assert!(matches!(without, Err(DistributionError::Malformed)));
    }

    #[test]
    fn headers_are_decoded() {
        assert_eq!(percent_decoded("-----BEGIN%20X%0A%2B%zz%"), "-----BEGIN X\n+%zz%");
    }
}
