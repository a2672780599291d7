//! Who says nothing, or says it too slowly, does not keep a place. These tests wait as long as the service does, some ten
//! seconds; one that never ends has found a place that is kept.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::limits::limited;
use crate::rig::Rig;

async fn connect(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.server.address()).await.unwrap()
}

async fn shake_hands(rig: &Rig, protocol: &str) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(rig.home.ca_path()).unwrap()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = connect(rig).await;
    TlsConnector::from(std::sync::Arc::new(config)).connect(name, stream).await.unwrap()
}

/// Reads what the service still says until it closes the connection.
async fn until_closed(mut stream: impl AsyncRead + Unpin) {
    // However it is closed: without TLS's own goodbye it is an error.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn who_does_not_shake_hands_is_not_waited_for() {
    let rig = limited(|_| ()).await;
    until_closed(connect(&rig).await).await;
}

#[tokio::test]
async fn who_asks_for_nothing_after_the_handshake_is_not_waited_for() {
    let rig = limited(|_| ()).await;
    let mut streams = Vec::new();
    for (protocol, said) in [
        ("http/1.1", ""),
        ("http/1.1", "POST /kbs/v0/auth HTTP/1.1\r\nhost: a\r\n"),
        ("h2", ""),
        ("h2", "PRI * HTTP/2.0\r\n"),
        ("h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let mut stream = shake_hands(&rig, protocol).await;
        stream.write_all(said.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        streams.push(stream);
    }
    join_all(streams.into_iter().map(until_closed)).await;
}

#[tokio::test]
async fn a_body_that_never_ends_is_not_waited_for() {
    let rig = limited(|_| ()).await;
    let body = reqwest::Body::wrap_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    let request = rig.http.post(format!("https://{}/kbs/v0/auth", rig.server.address())).body(body);
    let answer = request.send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].to_str().unwrap()), (503, "5"));
}

#[tokio::test]
async fn more_connections_than_there_are_places_wait_for_one() {
    // The rig's own client has the other place.
    let rig = limited(|limits| limits.connections = 2).await;
    let silent = connect(&rig).await;
    let started = Instant::now();
    let ((), _stream) = tokio::join!(until_closed(silent), shake_hands(&rig, "h2"));
    assert!(started.elapsed() >= Duration::from_secs(9), "there was no place before");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_whole() {
    let rig = limited(|_| ()).await;
    // There is next to nothing in a request for a challenge.
    for (path, most) in [("/kbs/v0/auth", 64 << 10), ("/kbs/v0/attest", 1 << 20)] {
        let large = vec![b' '; most + 1];
        let answer = rig.send(reqwest::Method::POST, path, None, None, Some(large)).await;
        answer.problem(413, "too-large");
        let mut whole = serde_json::to_vec(&crate::limits::request()).unwrap();
        whole.resize(most, b' ');
        let answer = rig.send(reqwest::Method::POST, path, None, None, Some(whole)).await;
        assert_eq!(answer.status, if path.ends_with("auth") { 200 } else { 400 });
    }
}
