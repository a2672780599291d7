//! Registries that misbehave or protect themselves, played by a server of this test: tokens, TLS, overload, lies.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(unreachable_pub, reason = "a test is a crate of its own")]

mod support;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use image_store::{Corruption, Descriptor, Digest, Error, ErrorKind, Store, StoreOptions, UsageError, media_type};
use support::server::{Seen, Server, tls};
use support::{TestImage, noise, options};

fn manifest_response(image: &TestImage) -> Response {
    ([(header::CONTENT_TYPE, media_type::OCI_MANIFEST)], image.bytes()).into_response()
}

/// An auth file for the server with one entry.
fn with_auth(server: &Server, entry: &serde_json::Value) -> (tempfile::TempDir, StoreOptions) {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().join("auth.json");
    let auths = serde_json::json!({ "auths": { server.address.to_string(): entry } });
    std::fs::write(&path, auths.to_string()).unwrap();
    (directory, StoreOptions { auth_file: Some(path), ..options() })
}

/// A registry that wants a token of its own service at `/token`; `grant` judges the request for one.
async fn token_registry(grant: fn(&Seen) -> bool) -> Server {
    let image = TestImage::new(1);
    Server::start(move |seen, headers, _| {
        if seen.path.starts_with("/token") {
            return if grant(seen) {
                axum::Json(serde_json::json!({ "token": "good-token" })).into_response()
            } else {
                StatusCode::UNAUTHORIZED.into_response()
            };
        }
        if seen.authorization.as_deref() == Some("Bearer good-token") {
            return manifest_response(&image);
        }
        let host = headers[header::HOST].to_str().unwrap();
        let challenge =
            format!(r#"Bearer realm="http://{host}/token",service="test",scope="repository:team/app:pull""#);
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    })
    .await
}

/// base64 of `user:open sesame`.
const BASIC: &str = "dXNlcjpvcGVuIHNlc2FtZQ==";

#[tokio::test]
async fn anonymous_token_is_got_once_and_used_again() {
    let server = token_registry(|seen| {
        seen.authorization.is_none() && seen.path.contains("scope=repository%3Ateam%2Fapp%3Apull")
    })
    .await;
    let store = server.open(&options()).await;
    store.resolve().await.unwrap();
    store.resolve().await.unwrap();
    assert_eq!(server.seen().iter().filter(|seen| seen.path.starts_with("/token")).count(), 1);
}

#[tokio::test]
async fn password_is_shown_to_the_token_service_only() {
    let server = token_registry(|seen| seen.authorization.as_deref() == Some(&format!("Basic {BASIC}"))).await;
    let (_directory, options) = with_auth(&server, &serde_json::json!({ "auth": BASIC }));
    server.open(&options).await.resolve().await.unwrap();
    let shown = server
        .seen()
        .into_iter()
        .filter(|seen| seen.authorization.as_deref().is_some_and(|text| text.starts_with("Basic")));
    assert!(shown.into_iter().all(|seen| seen.path.starts_with("/token")));
}

#[tokio::test]
async fn refused_token_is_denied_without_the_password_in_the_error() {
    let server = token_registry(|_| false).await;
    let (_directory, options) = with_auth(&server, &serde_json::json!({ "auth": BASIC }));
    let error = server.open(&options).await.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Denied { status: 401, .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("sesame"));
}

#[tokio::test]
async fn identity_token_is_exchanged() {
    let server = token_registry(|seen| {
        seen.method == Method::POST
            && seen.body.contains("grant_type=refresh_token")
            && seen.body.contains("refresh_token=identity-0815")
            && seen.body.contains("service=test")
    })
    .await;
    let entry = serde_json::json!({ "auth": "", "identitytoken": "identity-0815" });
    let (_directory, options) = with_auth(&server, &entry);
    let store = server.open(&options).await;
    store.resolve().await.unwrap();
    assert!(!format!("{store:?}").contains("0815"));
}

#[tokio::test]
async fn token_service_that_is_down_is_unavailable() {
    let server = Server::start(|seen, headers, _| {
        if seen.path.starts_with("/token") {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let challenge = format!(r#"Bearer realm="http://{}/token""#, headers[header::HOST].to_str().unwrap());
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    })
    .await;
    let error = server.open(&options()).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
}

#[tokio::test]
async fn overloaded_registry_is_asked_again() {
    let image = TestImage::new(1);
    let digest = image.digest();
    let server = Server::start(move |_, _, number| match number {
        1 => (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response(),
        2 | 3 => StatusCode::BAD_GATEWAY.into_response(),
        _ => manifest_response(&image),
    })
    .await;
    assert_eq!(server.open(&options()).await.resolve().await.unwrap().digest, digest);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn registry_that_stays_down_is_unavailable_after_the_tries() {
    let server = Server::start(|_, _, _| StatusCode::SERVICE_UNAVAILABLE.into_response()).await;
    let error = server.open(&options()).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn registry_that_never_answers_is_given_up() {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let reference = format!("docker://{}/app:v1", listener.local_addr().unwrap()).parse().unwrap();
    let options = StoreOptions { idle_timeout: Duration::from_millis(20), ..options() };
    let error = Store::open(&reference, &options).await.unwrap().resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn forbidden_is_denied_with_the_words_of_the_registry() {
    let server = Server::start(|_, _, _| {
        let body = serde_json::json!({ "errors": [{ "code": "DENIED", "message": "licence\u{1b}[31m ended" }] });
        (StatusCode::FORBIDDEN, axum::Json(body)).into_response()
    })
    .await;
    let error = server.open(&options()).await.resolve().await.unwrap_err();
    assert!(matches!(&error, Error::Denied { status: 403, detail, .. } if detail == "licence[31m ended"), "{error:?}");
}

#[tokio::test]
async fn manifest_that_is_too_large_or_another_is_refused() {
    let image = TestImage::new(1);
    let digest = image.digest();
    let server = Server::start(move |seen, _, _| {
        if seen.path.ends_with("v1") {
            let endless =
                futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 65_536])));
            return Body::from_stream(endless).into_response();
        }
        manifest_response(&image)
    })
    .await;
    let store = server.open(&options()).await;
    let error = store.resolve().await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Manifest(_), .. }), "{error:?}");
    let other = Digest::of(b"other");
    let error = store.manifest(&other).await.unwrap_err();
    assert!(
        matches!(error, Error::Corrupt { source: Corruption::Digest { found, wanted }, .. } if (found, wanted) == (digest, other))
    );
}

#[tokio::test]
async fn registry_without_ranges_is_read_from_the_start_again() {
    let bytes = noise(500_000, 1);
    let content = bytes.clone();
    let server = Server::start(move |_, _, number| {
        if number == 1 {
            // The announced length is not kept: the connection breaks.
            let short = futures_util::stream::iter([Ok(content.slice(..200_000)), Err(std::io::Error::other("cut"))]);
            return ([(header::CONTENT_LENGTH, content.len())], Body::from_stream(short)).into_response();
        }
        content.clone().into_response()
    })
    .await;
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &bytes);
    let store = server.open(&options()).await;
    assert_eq!(store.small_blob(&descriptor, 1 << 20).await.unwrap(), bytes);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn blob_of_another_length_is_refused_at_once() {
    let server = Server::start(|_, _, _| noise(1_000, 1).into_response()).await;
    for size in [999, 1_001] {
        let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(&noise(1_000, 1)), size);
        let error = server.open(&options()).await.small_blob(&descriptor, 1 << 20).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { source: Corruption::Size { found: 1_000, .. }, .. }), "{error:?}");
    }
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn blob_of_unannounced_length_is_refused_when_it_is_too_long_or_too_short() {
    let server = Server::start(|_, _, _| {
        let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(noise(1_000, 1))]);
        Body::from_stream(chunks).into_response()
    })
    .await;
    for size in [999, 1_001] {
        let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::of(&noise(1_000, 1)), size);
        let error = server.open(&options()).await.small_blob(&descriptor, 1 << 20).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { source: Corruption::Size { .. }, .. }), "{size}: {error:?}");
    }
}

#[tokio::test]
async fn upload_to_another_host_carries_no_credentials() {
    let storage = Server::start(|seen, headers, _| match seen.method {
        Method::PATCH => {
            let location = format!("http://{}/upload/2", headers[header::HOST].to_str().unwrap());
            (StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response()
        }
        _ => StatusCode::CREATED.into_response(),
    })
    .await;
    let elsewhere = storage.address;
    let server = Server::start(move |seen, _, _| {
        if seen.authorization.is_none() {
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=x")]).into_response();
        }
        (StatusCode::ACCEPTED, [(header::LOCATION, format!("http://{elsewhere}/upload/1?x=y"))]).into_response()
    })
    .await;
    let (_directory, options) = with_auth(&server, &serde_json::json!({ "auth": BASIC }));
    let mut writer = server.create(&options).await.begin_blob().await.unwrap();
    writer.write(Bytes::from_static(b"content")).await.unwrap();
    let (digest, _) = writer.complete().await.unwrap();
    let seen = storage.seen();
    assert!(seen.iter().all(|seen| seen.authorization.is_none()), "{seen:?}");
    assert_eq!((seen[0].path.as_str(), seen[0].body.as_str()), ("/upload/1?x=y", "content"));
    assert_eq!(seen[1].path, format!("/upload/2?digest={}", digest.to_string().replace(':', "%3A")));
}

#[tokio::test]
async fn lost_answer_to_the_end_of_an_upload_is_no_failure() {
    let server = Server::start(|seen, headers, _| {
        let location = format!("http://{}/session", headers[header::HOST].to_str().unwrap());
        match (&seen.method, seen.path.contains("/blobs/sha256:")) {
            (&Method::POST | &Method::PATCH, _) => {
                (StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response()
            }
            (&Method::HEAD, true) => StatusCode::OK.into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    })
    .await;
    let mut writer = server.create(&options()).await.begin_blob().await.unwrap();
    writer.write(Bytes::from_static(b"content")).await.unwrap();
    writer.complete().await.unwrap();
}

#[tokio::test]
async fn refused_upload_says_why_while_it_is_written() {
    let server = Server::start(|seen, headers, _| {
        let location = format!("http://{}/session", headers[header::HOST].to_str().unwrap());
        match seen.method {
            Method::POST => (StatusCode::ACCEPTED, [(header::LOCATION, location)]).into_response(),
            _ => (StatusCode::PAYLOAD_TOO_LARGE, "quota is used up").into_response(),
        }
    })
    .await;
    let mut writer = server.create(&options()).await.begin_blob().await.unwrap();
    writer.write(noise(100_000, 1)).await.unwrap();
    let error = writer.complete().await.unwrap_err();
    assert!(matches!(&error, Error::Refused { status: 413, detail, .. } if detail == "quota is used up"), "{error:?}");
}

#[tokio::test]
async fn tls_registry_is_trusted_through_an_extra_root_only() {
    let image = TestImage::new(1);
    let digest = image.digest();
    let (server, authority) = Server::start_tls(move |_, _, _| manifest_response(&image)).await;
    let trusting = StoreOptions { plain_http: false, extra_root_certificates: vec![authority], ..options() };
    assert_eq!(server.open(&trusting).await.resolve().await.unwrap().digest, digest);
    let before = server.seen().len();
    let strict = StoreOptions { plain_http: false, ..options() };
    let error = server.open(&strict).await.resolve().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // In particular not by plain http.
    assert_eq!(server.seen().len(), before);
}

#[tokio::test]
async fn token_is_got_over_tls_and_never_by_plain_http() {
    let image = TestImage::new(1);
    let plain = Server::start(|_, _, _| axum::Json(serde_json::json!({ "token": "t" })).into_response()).await;
    let plain_address = plain.address;
    let (server, authority) = Server::start_tls(move |seen, headers, _| {
        if seen.path.starts_with("/token") {
            return axum::Json(serde_json::json!({ "access_token": "t" })).into_response();
        }
        if seen.authorization.as_deref() == Some("Bearer t") {
            return manifest_response(&image);
        }
        let realm = if seen.path.ends_with("/v2") {
            format!("http://{plain_address}/token")
        } else {
            format!("https://{}/token", headers[header::HOST].to_str().unwrap())
        };
        let challenge = format!(r#"Bearer realm="{realm}",service="s""#);
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    })
    .await;
    let (_directory, options) = with_auth(&server, &serde_json::json!({ "auth": BASIC }));
    let options = StoreOptions { plain_http: false, extra_root_certificates: vec![authority], ..options };
    server.open(&options).await.resolve().await.unwrap();
    // This tag's challenge names a plain realm.
    let error = server.open(&options).await.manifest_by_tag("v2").await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { source: Corruption::Protocol { .. }, .. }), "{error:?}");
    assert!(plain.seen().is_empty());
}

#[tokio::test]
async fn certificate_that_is_none_is_refused_by_its_number() {
    let (_, authority) = tls();
    let options = StoreOptions { extra_root_certificates: vec![authority, b"no certificate".to_vec()], ..options() };
    let error = Store::open(&"docker://registry.example/app".parse().unwrap(), &options).await.unwrap_err();
    assert!(matches!(error, Error::Usage(UsageError::Certificate { number: 2 })));
}

/// The system's certificates are found through the environment, so the test runs itself again with another one.
#[tokio::test]
async fn registry_is_read_on_a_system_without_root_certificates() {
    const MARKER: &str = "SEALIFT_TEST_WITHOUT_ROOTS";
    if std::env::var_os(MARKER).is_some() {
        let image = TestImage::new(1);
        let (server, authority) = Server::start_tls(move |seen, headers, _| {
            if seen.path.starts_with("/token") {
                return axum::Json(serde_json::json!({ "token": "t" })).into_response();
            }
            if seen.authorization.as_deref() == Some("Bearer t") {
                return manifest_response(&image);
            }
            let challenge = format!(r#"Bearer realm="https://{}/token""#, headers[header::HOST].to_str().unwrap());
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
        })
        .await;
        let (_directory, options) = with_auth(&server, &serde_json::json!({ "auth": BASIC }));
        let trusting = StoreOptions { plain_http: false, extra_root_certificates: vec![authority], ..options };
        server.open(&trusting).await.resolve().await.unwrap();
        assert!(server.seen().iter().any(|seen| seen.path.contains("scope=repository%3Ateam%2Fapp%3Apull")));
        let plain = token_registry(|_| true).await;
        plain.open(&support::options()).await.resolve().await.unwrap();
        return;
    }
    let empty = tempfile::NamedTempFile::new().unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "registry_is_read_on_a_system_without_root_certificates"])
        .env(MARKER, "1")
        .env("SSL_CERT_FILE", empty.path())
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}
