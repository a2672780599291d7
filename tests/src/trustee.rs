//! A Trustee key broker as a shim sees it, made after what the real one was seen to answer (protocol 0.4.0, evidence `sample`):
//! sessions in cookies, report data over its own three members, 401 for whatever it does not give.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use jose::jwe::{self, Recipient};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha384};

use crate::forge::base64;

const NONCE: &str = "dvhcIo0krgmuZnW2GPv6YkhsgAuKLvL7MTzVU3E4Vm4=";
const SESSION: &str = "kbs-session-id=c8ecb002c5734c0dbc933e3ebabf06ed";
const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA";

/// A broker on a loopback port, as long as the test lasts.
#[derive(Debug)]
pub struct Trustee {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug, Default)]
struct Broker {
    resources: BTreeMap<String, Vec<u8>>,
    /// The key of the guest that has attested.
    guest: Option<Value>,
}

struct Asked {
    line: String,
    cookie: Option<String>,
    bearer: Option<String>,
    body: Value,
}

impl Trustee {
    /// Starts one that gives these resources, `REPOSITORY/TYPE/TAG`, to whoever attests.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(resources: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
        let url = format!("http://{}", listener.local_addr().expect("port"));
        let resources = resources.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
        let mut broker = Broker { resources, guest: None };
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let lines = Arc::clone(&seen);
        spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let asked = read(&connection);
                lines.lock().expect("lines").push(asked.line.clone());
                write(connection, broker.answer(&asked));
            }
        });
        Self { url, seen }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The requests so far: method and path.
    ///
    /// # Panics
    /// When the broker has failed.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("lines").clone()
    }
}

impl Broker {
    fn answer(&mut self, asked: &Asked) -> (u16, Option<&'static str>, String) {
        let refused = |why: &str| {
            let kind = format!("https://github.com/confidential-containers/kbs/errors/{why}");
            (401, None, json!({"type": kind, "detail": why}).to_string())
        };
        match asked.line.as_str() {
            "POST /kbs/v0/auth" => {
                if asked.body["version"] != "0.4.0" || asked.body["tee"] != "sample" {
                    return refused("RcarAuthFailed");
                }
                (200, Some(SESSION), json!({"nonce": NONCE, "extra-params": ""}).to_string())
            }
            "POST /kbs/v0/attest" => {
                if asked.cookie.as_deref() != Some(SESSION) || !is_bound(&asked.body) {
                    return refused("RcarAttestFailed");
                }
                self.guest = Some(asked.body["runtime-data"]["tee-pubkey"].clone());
                (200, Some(SESSION), json!({"token": TOKEN}).to_string())
            }
            line => {
                let path = line.strip_prefix("GET /kbs/v0/resource/").unwrap_or_default();
                let guest = self.guest.as_ref().filter(|_| asked.bearer.as_deref() == Some(TOKEN));
                match (guest, self.resources.get(path)) {
                    (Some(guest), Some(resource)) => {
                        let guest = Recipient::from_jwk(&serde_json::from_value(guest.clone()).expect("key"));
                        let message = jwe::encrypt(resource, &[guest.expect("key")]).expect("message");
                        (200, None, message.to_json().expect("message"))
                    }
                    (None, _) => refused("TokenNotFound"),
                    (_, None) => refused("PluginInternalError"),
                }
            }
        }
    }
}

/// Whether the evidence is over the nonce, the guest's key and no more, in canonical JSON.
fn is_bound(attestation: &Value) -> bool {
    let text = |name: &str| attestation["runtime-data"]["tee-pubkey"][name].as_str().unwrap_or_default().to_owned();
    let bound = format!(
        r#"{{"additional-evidence":"","nonce":"{NONCE}","tee-pubkey":{{"alg":"{}","crv":"{}","kty":"{}","x":"{}","y":"{}"}}}}"#,
        text("alg"),
        text("crv"),
        text("kty"),
        text("x"),
        text("y")
    );
    let evidence = &attestation["tee-evidence"];
    evidence["additional_evidence"] == ""
        && evidence["primary_evidence"] == json!({"svn": "1", "report_data": base64(&Sha384::digest(bound))})
}

fn read(connection: &TcpStream) -> Asked {
    let mut reader = BufReader::new(connection);
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).expect("request");
        line.trim_end().to_owned()
    };
    let line = next().rsplit_once(' ').map(|(line, _)| line.to_owned()).unwrap_or_default();
    let mut asked = Asked { line, cookie: None, bearer: None, body: Value::Null };
    let mut length = 0;
    loop {
        let header = next();
        let Some((name, value)) = header.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("length"),
            "cookie" => asked.cookie = Some(value.to_owned()),
            "authorization" => asked.bearer = value.strip_prefix("Bearer ").map(str::to_owned),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("body");
    asked.body = serde_json::from_slice(&body).unwrap_or_default();
    asked
}

fn write(mut connection: TcpStream, (status, cookie, body): (u16, Option<&str>, String)) {
    let cookie = cookie.map(|cookie| format!("set-cookie: {cookie}; Expires=Tue, 24 Nov 2099 08:00:18 GMT\r\n"));
    let head = format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n{}\r\n",
        body.len(),
        cookie.unwrap_or_default()
    );
    connection.write_all((head + &body).as_bytes()).expect("answer");
}
