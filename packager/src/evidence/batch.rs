//! Batches: one request a line, one answer a line, in order. A line that is no request gets an answer like any other.

use std::path::PathBuf;

use jiff::Timestamp;
use launch_evidence::saved;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::expect::Expect;
use super::input::{Certificates, evidence, read};
use super::trust::Trust;

/// The longest line that is read, in bytes.
pub(crate) const LINE_MAX: usize = 64 * 1024;

/// One request. Paths are relative to where the command runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    name: String,
    report: Option<PathBuf>,
    #[serde(default)]
    certs: Vec<PathBuf>,
    crl: Option<PathBuf>,
    quote: Option<PathBuf>,
    collateral: Option<PathBuf>,
    at: Option<Timestamp>,
    #[serde(default)]
    roots: Vec<PathBuf>,
    #[serde(default)]
    expect: Expect,
}

/// Its answer.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    name: Option<String>,
    verdict: &'static str,
    /// The names of the checks that failed, in the order of judgement: the first decides.
    failed: Vec<String>,
    /// Why, where it is no check of the evidence that failed; else what the first failure wanted and found.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// `untrusted` where the request brought its own roots.
    roots: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<Value>,
}

impl Answer {
    /// Whether everything held.
    pub(crate) fn passed(&self) -> bool {
        self.failed.is_empty()
    }

    fn refused(name: Option<String>, check: &str, reason: String) -> Self {
        let failed = vec![check.to_owned()];
        Self { name, verdict: "fail", failed, reason: Some(reason), roots: "none", claims: None }
    }
}

/// Answers one line; an empty one has no answer.
pub(crate) fn answer(line: &[u8], now: Timestamp) -> Option<Answer> {
    if line.trim_ascii().is_empty() {
        return None;
    }
    if line.len() > LINE_MAX {
        return Some(Answer::refused(None, REQUEST, format!("the line has more than {LINE_MAX} bytes")));
    }
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => {
            // A request that is wrong in one member may still say its name.
            let name =
                serde_json::from_slice::<Value>(line).ok().and_then(|value| Some(value["name"].as_str()?.to_owned()));
            return Some(Answer::refused(name, REQUEST, format!("the line is no request: {error}")));
        }
    };
    let name = request.name.clone();
    Some(judge(request, now).unwrap_or_else(|(check, reason)| Answer::refused(Some(name), check, reason)))
}

/// What failed in place of a check when the request itself is at fault.
const REQUEST: &str = "request";

fn judge(request: Request, now: Timestamp) -> Result<Answer, (&'static str, String)> {
    let of = |check: &'static str| move |reason: String| (check, reason);
    let file = match (&request.report, &request.quote) {
        (Some(report), None) => report,
        (None, Some(quote)) => quote,
        _ => return Err((REQUEST, "a request has either `report` or `quote`".to_owned())),
    };
    let bytes = read(file).map_err(of(REQUEST))?;
    let certificates = Certificates::read(&request.certs).map_err(of(REQUEST))?;
    let collateral = match &request.collateral {
        None => None,
        Some(path) => {
            let text = read(path).map_err(of(REQUEST))?;
            Some(serde_json::from_slice(&text).map_err(|error| ("collateral", format!("no collateral: {error}")))?)
        }
    };
    let roots = request.roots.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>().map_err(of(REQUEST))?;
    let list = request.crl.as_deref().map(read).transpose().map_err(of(REQUEST))?;
    let question = request.expect.question(request.at.unwrap_or(now)).map_err(of(REQUEST))?;
    let trust = Trust::new(&roots, list.as_deref()).map_err(of("trust-root"))?;
    let primary = if request.quote.is_some() {
        launch_evidence::tdx::evidence_json(&bytes, collateral)
    } else {
        evidence(&bytes, &certificates, None).map_err(of("certificate-form"))?
    };
    let verifier = trust.verifier(&primary).ok_or((REQUEST, "there is no verifier".to_owned()))?;
    let answer = saved::judge(verifier, &primary, &question);
    Ok(Answer {
        name: Some(request.name),
        verdict: if answer.holds() { "pass" } else { "fail" },
        failed: answer.failures().map(|check| check.name.to_string()).collect(),
        reason: answer.failures().next().map(ToString::to_string),
        roots: if trust.untrusted { "untrusted" } else { "built-in" },
        claims: answer.evidence.as_ref().and_then(|evidence| serde_json::to_value(evidence.claims()).ok()),
    })
}
