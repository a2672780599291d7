// A small witness (C2SP tlog-witness, `add-checkpoint`) on a loopback port, written from the specification: it reads requests
// by itself and keeps one checkpoint of one log.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use transparency_log::{
    Checkpoint, ConsistencyProof, Cosigner, EMPTY_ROOT, Hash, SignedCheckpoint, TreeSize, VerifierKey,
};

/// When it says that it saw a checkpoint, in seconds of Unix time.
pub(crate) const WITNESSED_AT: u64 = 1_790_000_000;

/// A witness that runs.
pub(crate) struct TestWitness {
    key: VerifierKey,
    port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    cosigner: Cosigner,
    log: VerifierKey,
    size: TreeSize,
    root: Hash,
    /// The statuses that it answered with.
    answers: Vec<u16>,
    is_away: bool,
}

impl TestWitness {
    /// A witness of the log with this key.
    pub(crate) fn start(name: &str, log: VerifierKey) -> Self {
        let cosigner = Cosigner::generate(name.parse().expect("name")).expect("key");
        let key = cosigner.verifier_key();
        let state =
            State { cosigner, log, size: TreeSize::EMPTY, root: EMPTY_ROOT, answers: Vec::new(), is_away: false };
        let state = Arc::new(Mutex::new(state));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
        let port = listener.local_addr().expect("port").port();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that goes away in the middle is none of its business.
                let _ = serve(&stream, &shared);
            }
        });
        Self { key, port, state }
    }

    pub(crate) fn key(&self) -> &VerifierKey {
        &self.key
    }

    /// The submission prefix.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/w/1", self.port)
    }

    /// The size that it cosigned last.
    pub(crate) fn size(&self) -> u64 {
        self.state.lock().expect("state").size.get()
    }

    /// The statuses that it answered with, in order.
    pub(crate) fn answers(&self) -> Vec<u16> {
        self.state.lock().expect("state").answers.clone()
    }

    /// From now on it fails, or works again.
    pub(crate) fn set_away(&self, is_away: bool) {
        self.state.lock().expect("state").is_away = is_away;
    }
}

fn serve(mut stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let is_ours = line.starts_with("POST /w/1/add-checkpoint HTTP/1.1");
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let mut state = state.lock().expect("state");
    let (status, answer) = match is_ours {
        true if state.is_away => (503, String::new()),
        true => state.add_checkpoint(&String::from_utf8_lossy(&body)),
        false => (404, String::new()),
    };
    state.answers.push(status);
    let media_type = if status == 409 { "text/x.tlog.size" } else { "text/plain" };
    let length = answer.len();
    let head = format!(
        "HTTP/1.1 {status} -\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{answer}").as_bytes())
}

/// The parts of a request: the old size, the proof, the checkpoint.
fn parse(body: &str) -> Option<(TreeSize, Vec<Hash>, SignedCheckpoint)> {
    let (head, note) = body.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let digits = lines.next()?.strip_prefix("old ")?;
    let old: u64 = digits.parse().ok().filter(|old: &u64| old.to_string() == digits)?;
    let hash = |line| Hash::from_slice(&STANDARD.decode(line).ok()?);
    let proof: Vec<Hash> = lines.map(hash).collect::<Option<_>>()?;
    let is_short = proof.len() <= 63;
    is_short.then_some((TreeSize::try_from(old).ok()?, proof, note.parse().ok()?))
}

impl State {
    fn add_checkpoint(&mut self, body: &str) -> (u16, String) {
        let Some((old, proof, mut signed)) = parse(body) else { return (400, String::new()) };
        if signed.unverified().origin != *self.log.name() {
            return (404, String::new());
        }
        let Ok(Checkpoint { size, root, .. }) = signed.verify(&self.log) else { return (403, String::new()) };
        if old > size {
            return (400, String::new());
        }
        if old != self.size {
            return (409, format!("{}\n", self.size));
        }
        let proof = ConsistencyProof::from_hashes(proof);
        if proof.and_then(|proof| proof.verify(old, &self.root, size, &root)).is_err() {
            return (422, String::new());
        }
        (self.size, self.root) = (size, root);
        signed.cosign(&self.cosigner, WITNESSED_AT).expect("cosignature");
        let note = signed.to_string();
        (200, format!("{}\n", note.trim_end().rsplit('\n').next().expect("line")))
    }
}
