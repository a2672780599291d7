use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use command_line::{CommonArgs, OutputFormat};
use ocicrypt::cipher::KeyEncryptionKey;
use ocicrypt::keyprovider::{UnwrapRequest, WrapRequest};
use ocicrypt::options::PrivateOptions;
use ocicrypt::packet::{BrokerPacket, Packet};
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::*;

/// Wraps with a key of its own; opens what it wrapped.
struct Provider(KeyEncryptionKey);

impl KeyProvider for Provider {
    async fn wrap(&self, request: WrapRequest) -> Result<BrokerPacket, Failure> {
        let kid = "kbs:///shop/image-key/1".parse().unwrap();
        Ok(BrokerPacket::seal(&kid, &self.0, &request.private).unwrap())
    }

    async fn unwrap(&self, request: UnwrapRequest) -> Result<PrivateOptions, Failure> {
        let Packet::Broker(packet) = request.packet else { panic!("a broker's packet was sent") };
        let denied = || Failure::denied("no seat is free").cause("two are taken").hint("wait");
        let json = packet.open(&self.0).ok_or_else(denied)?;
        Ok(PrivateOptions::from_json(&json).unwrap())
    }
}

async fn started(path: &Path) -> Grpc<Channel> {
    let address = ServerAddress::Unix(path.to_owned());
    let key = KeyEncryptionKey::generate().unwrap();
    let console = Console::new(&CommonArgs { output: OutputFormat::Json, verbose: 0, no_progress: true });
    tokio::spawn(async move { serve(Provider(key), &address, &console).await.unwrap() });
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        assert!(std::time::Instant::now() < until, "the server does not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let endpoint = Endpoint::from_shared(format!("unix:{}", path.display())).unwrap();
    Grpc::new(endpoint.connect().await.unwrap())
}

async fn call(client: &mut Grpc<Channel>, method: &'static str, input: impl Into<Vec<u8>>) -> Result<Value, Status> {
    client.ready().await.unwrap();
    let path = format!("/keyprovider.KeyProviderService/{method}");
    let codec = ProstCodec::<Input, Output>::default();
    let request = tonic::Request::new(Input { input: input.into() });
    let answer = client.unary(request, PathAndQuery::try_from(path).unwrap(), codec).await?;
    Ok(serde_json::from_slice(&answer.into_inner().output).unwrap())
}

// `{"symkey": 32 zeros, "digest": …, "cipheroptions": {"nonce": 16 zeros}}`
const OPTIONS: &str = "eyJzeW1rZXkiOiJBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBPSIsImRpZ2VzdCI6InNoYTI1NjowMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwIiwiY2lwaGVyb3B0aW9ucyI6eyJub25jZSI6IkFBQUFBQUFBQUFBQUFBQUFBQUFBQUE9PSJ9fQ==";

fn wrap() -> String {
    json!({"op": "keywrap", "keywrapparams": {"ec": {"Parameters": {"sealift": ["c2hvcA=="]}}, "optsdata": OPTIONS}})
        .to_string()
}

fn unwrap(annotation: &Value) -> String {
    json!({"op": "keyunwrap", "keyunwrapparams": {"dc": {"Parameters": {}}, "annotation": annotation}}).to_string()
}

#[tokio::test]
async fn a_key_is_wrapped_and_opened_as_in_the_other_form() {
    let directory = tempfile::tempdir().unwrap();
    let mut client = started(&directory.path().join("keys")).await;
    let wrapped = call(&mut client, "WrapKey", wrap()).await.unwrap();
    let opened = call(&mut client, "UnWrapKey", unwrap(&wrapped["keywrapresults"]["annotation"])).await.unwrap();
    assert_eq!(opened, json!({"keyunwrapresults": {"optsdata": OPTIONS}}));
}

#[tokio::test]
async fn refusals_have_a_code_and_one_line_that_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let mut client = started(&directory.path().join("keys")).await;
    let mut others = started(&directory.path().join("others")).await;
    let wrapped = call(&mut others, "WrapKey", wrap()).await.unwrap();
    let unwrap = unwrap(&wrapped["keywrapresults"]["annotation"]);
    for (method, input, code, words) in [
        ("UnWrapKey", unwrap.clone(), Code::PermissionDenied, "no seat is free: two are taken; wait"),
        ("WrapKey", unwrap, Code::InvalidArgument, "one of the other call"),
        ("UnWrapKey", wrap(), Code::InvalidArgument, "one of the other call"),
        ("WrapKey", "{}".to_owned(), Code::InvalidArgument, "cannot answer the request"),
        ("WrapKey", " ".repeat(INPUT_MAX + 1), Code::InvalidArgument, "too long"),
        ("WrapKey", " ".repeat(INPUT_MAX + FRAME_MAX), Code::OutOfRange, "too large"),
        ("Rotate", wrap(), Code::Unimplemented, ""),
    ] {
        let status = call(&mut client, method, input).await.unwrap_err();
        assert_eq!(status.code(), code, "{method}: {status:?}");
        assert!(status.message().contains(words), "{method}: {status:?}");
    }
}

#[tokio::test]
async fn the_socket_is_its_owners_and_one_that_nobody_listens_on_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys");
    drop(tokio::net::UnixListener::bind(&path).unwrap());
    let listener = socket::bind(&path).await.unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(socket::bind(&path).await.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
    drop(listener);
    let file = directory.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    socket::bind(&file).await.unwrap_err();
    assert_eq!(std::fs::read(&file).unwrap(), b"mine");
}
