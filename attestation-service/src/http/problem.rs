//! Errors as RFC 9457 problems: a stable code, one line for people, the reasons, the audit entry; never an inside detail.

use std::error::Error;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use release_protocol::Problem;
use serde::de::DeserializeOwned;

use crate::custody::CustodyError;
use crate::log_head::LogHeadError;
use crate::policy::PolicyError;
use crate::release::Refusal;
use crate::service::ServiceError;
use crate::store::StoreError;

/// An error on its way out.
#[derive(Debug)]
pub(crate) struct ApiError(Refusal);

impl<E: Into<Refusal>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Parses a JSON body.
pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| Refusal::Malformed(format!("the request's body is malformed: {error}")))
}

/// The token of a `Bearer` header.
pub(super) fn bearer<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()?.strip_prefix("Bearer ")
}

pub(super) async fn no_such_route(uri: Uri) -> ApiError {
    ApiError(Refusal::Unknown(format!("there is nothing at `{}`", uri.path())))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let request_id = uuid::Uuid::now_v7().to_string();
        let retry_after = match &self.0 {
            Refusal::Unavailable { retry_after, .. } | Refusal::TooMany { retry_after } => {
                retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0)).max(1)
            }
            _ => RETRY_AFTER_SECONDS,
        };
        let (kind, detail, reasons, entry) = parts(self.0, &request_id);
        let problem = Problem {
            kind: format!("{}{}", Problem::URN, kind.code),
            title: kind.title.to_owned(),
            status: kind.status.as_u16(),
            detail,
            reasons,
            entry,
            request_id: Some(request_id),
        };
        respond(kind.status, problem, retry_after)
    }
}

/// A kind of problem: what it is called and which status it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Kind {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) title: &'static str,
}

impl Kind {
    const fn new(status: StatusCode, code: &'static str, title: &'static str) -> Self {
        Self { status, code, title }
    }

    pub(super) const MALFORMED: Self = Self::new(StatusCode::BAD_REQUEST, "malformed", "The request is malformed");
    pub(super) const NOT_ATTESTED: Self = Self::new(StatusCode::UNAUTHORIZED, "not-attested", "Attestation is needed");
    pub(super) const DENIED: Self = Self::new(StatusCode::FORBIDDEN, "denied", "The request is denied");
    pub(super) const EVIDENCE_REJECTED: Self =
        Self::new(StatusCode::FORBIDDEN, "evidence-rejected", "The launch evidence does not verify");
    pub(super) const UNKNOWN: Self = Self::new(StatusCode::NOT_FOUND, "unknown", "There is no such thing");
    pub(super) const METHOD_NOT_ALLOWED: Self =
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method Not Allowed");
    pub(super) const MISDIRECTED: Self = Self::new(
        StatusCode::MISDIRECTED_REQUEST,
        "misdirected",
        "The request is for another host than the connection",
    );
    pub(super) const CONFLICT: Self =
        Self::new(StatusCode::CONFLICT, "conflict", "The change conflicts with what there is");
    pub(super) const SEATS_EXHAUSTED: Self = Self::new(StatusCode::CONFLICT, "seats-exhausted", "All seats are taken");
    pub(super) const TOO_LARGE: Self = Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Payload Too Large");
    pub(super) const TOO_MANY: Self =
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests");
    pub(super) const INTERNAL: Self = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The service failed");
    pub(super) const UNAVAILABLE: Self = Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again later");
}

/// When to come back where nothing better is known, in seconds.
const RETRY_AFTER_SECONDS: u64 = 5;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

fn respond(status: StatusCode, problem: Problem, retry_after_seconds: u64) -> Response {
    let mut response = (status, Json(problem)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    if [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS].contains(&status) {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_after_seconds));
    }
    response
}

/// The answer to a request for another host than the one that the connection was made to.
pub(super) fn misdirected() -> Response {
    let kind = Kind::MISDIRECTED;
    let problem = Problem {
        kind: format!("{}{}", Problem::URN, kind.code),
        title: kind.title.to_owned(),
        status: kind.status.as_u16(),
        detail: "`Host` is another name than the one that TLS was told".to_owned(),
        reasons: Vec::new(),
        entry: None,
        request_id: Some(uuid::Uuid::now_v7().to_string()),
    };
    respond(kind.status, problem, RETRY_AFTER_SECONDS)
}

/// Turns what the layers around the handlers answer (too large, too slow, wrong method, a panic) into problems, too.
pub(super) async fn of_layers(response: Response) -> Response {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    if !is_error || response.headers().get(CONTENT_TYPE) == Some(&PROBLEM_JSON) {
        return response;
    }
    let code = match status {
        StatusCode::BAD_REQUEST => Kind::MALFORMED.code,
        StatusCode::METHOD_NOT_ALLOWED => Kind::METHOD_NOT_ALLOWED.code,
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TOO_LARGE.code,
        StatusCode::SERVICE_UNAVAILABLE => Kind::UNAVAILABLE.code,
        _ if status.is_server_error() => Kind::INTERNAL.code,
        _ => "refused",
    };
    let title = status.canonical_reason().unwrap_or("Refused").to_owned();
    let problem = Problem {
        kind: format!("{}{code}", Problem::URN),
        detail: title.clone(),
        title,
        status: status.as_u16(),
        reasons: Vec::new(),
        entry: None,
        request_id: Some(uuid::Uuid::now_v7().to_string()),
    };
    respond(status, problem, RETRY_AFTER_SECONDS)
}

type Parts = (Kind, String, Vec<String>, Option<u64>);

fn parts(refusal: Refusal, request_id: &str) -> Parts {
    let plain = |kind, detail| (kind, detail, Vec::new(), None);
    match refusal {
        Refusal::Malformed(detail) => plain(Kind::MALFORMED, detail),
        Refusal::NotAttested(detail) => plain(Kind::NOT_ATTESTED, detail),
        Refusal::EvidenceRejected { reasons, entry } => {
            (Kind::EVIDENCE_REJECTED, reasons.first().cloned().unwrap_or_default(), reasons, Some(entry))
        }
        Refusal::Denied { reasons, entry } => (Kind::DENIED, reasons.join("; "), reasons, entry),
        Refusal::Unknown(detail) => plain(Kind::UNKNOWN, detail),
        Refusal::SeatsExhausted { seats, entry } => {
            (Kind::SEATS_EXHAUSTED, format!("all {seats} seats of the licence are taken"), Vec::new(), Some(entry))
        }
        Refusal::Unavailable { detail, .. } => plain(Kind::UNAVAILABLE, detail),
        Refusal::TooMany { .. } => plain(Kind::TOO_MANY, "this address asks too often".to_owned()),
        Refusal::Internal(error) => {
            let (kind, detail) = internal(&error, request_id);
            plain(kind, detail)
        }
    }
}

fn internal(error: &ServiceError, request_id: &str) -> (Kind, String) {
    let text = error.to_string();
    match error {
        ServiceError::Policy(PolicyError::Process(_)) => {
            tracing::error!(request_id, error = error as &dyn Error, "no policy can be evaluated");
            (Kind::UNAVAILABLE, "the service cannot evaluate policies now".to_owned())
        }
        ServiceError::BadRequest(_) | ServiceError::Policy(_) => (Kind::MALFORMED, text),
        ServiceError::Store(StoreError::Unknown { .. }) => (Kind::UNKNOWN, text),
        ServiceError::Store(StoreError::Exists { .. } | StoreError::Conflict(_)) => (Kind::CONFLICT, text),
        ServiceError::Store(StoreError::Outdated) => (Kind::UNAVAILABLE, text),
        ServiceError::Store(cause @ (StoreError::Database(_) | StoreError::Writer)) => {
            tracing::error!(request_id, error = cause as &dyn Error, "the database failed");
            (Kind::UNAVAILABLE, "the service's database does not answer".to_owned())
        }
        ServiceError::Custody(
            cause @ (CustodyError::Unavailable { .. }
            | CustodyError::Refused { .. }
            | CustodyError::Unreachable { .. }
            | CustodyError::NoKey { .. }),
        ) => {
            tracing::error!(request_id, error = cause as &dyn Error, "the master key cannot be used");
            (Kind::UNAVAILABLE, custody_detail(cause).to_owned())
        }
        ServiceError::LogHead(LogHeadError::File(cause)) => {
            tracing::error!(request_id, error = cause as &dyn Error, "a signed checkpoint could not be kept");
            (Kind::UNAVAILABLE, "the service's disk does not take anything".to_owned())
        }
        other => {
            tracing::error!(request_id, error = other as &dyn Error, "request failed");
            (Kind::INTERNAL, "the service failed; its log has the request's id".to_owned())
        }
    }
}

/// What guests are told: not where keys are.
fn custody_detail(error: &CustodyError) -> &'static str {
    match error {
        CustodyError::Unavailable { .. } => "the store of the service's master key does not answer",
        CustodyError::Refused { .. } => "the store of the service's master key refuses the service",
        _ => "the service's master key cannot be used",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::home::HomeError;

    #[test]
    fn what_the_disk_or_the_database_did_not_take_is_to_be_tried_again() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let head = HomeError::File { action: "write", path: "log.head".into(), source: full() };
        for error in [
            ServiceError::Store(StoreError::Writer),
            ServiceError::Store(StoreError::Database(sqlx::Error::Io(full()))),
            ServiceError::LogHead(LogHeadError::File(head)),
            CustodyError::Unavailable { name: "openbao://transit/key".to_owned(), source: "away".into() }.into(),
            CustodyError::Refused { name: "openbao://transit/key".to_owned(), source: "revoked".into() }.into(),
        ] {
            let (kind, _) = internal(&error, "request");
            assert_eq!((kind.status, kind.code), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"), "{error}");
        }
        let shrunk = ServiceError::LogHead(LogHeadError::Shrunk { found: 1, signed: 2 });
        assert_eq!(internal(&shrunk, "request").0.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
