//! A way to a registry that breaks: connections are dropped in the middle of blobs.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A proxy on a loopback port.
#[derive(Debug)]
pub struct CuttingProxy {
    port: u16,
    cuts: Arc<AtomicUsize>,
}

/// How it goes on after the last cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Then {
    /// No connection comes about any more, and those that are there end.
    Fail,
    /// All is well.
    Heal,
}

impl CuttingProxy {
    /// A proxy to the registry at `port`. The first `times` connections that get so far end after `bytes` of answers;
    /// what becomes of later ones is for `then` to say.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(port: u16, bytes: usize, times: usize, then: Then) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
        let own = listener.local_addr().expect("port").port();
        let cuts = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&cuts);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let cuts = Arc::clone(&seen);
                std::thread::spawn(move || {
                    if then == Then::Heal || cuts.load(Ordering::Acquire) < times {
                        pass(&client, port, bytes, times, then, &cuts);
                    } else {
                        cuts.fetch_add(1, Ordering::AcqRel);
                    }
                });
            }
        });
        Self { port: own, cuts }
    }

    /// `docker://127.0.0.1:PORT/NAME`.
    pub fn reference(&self, name: &str) -> String {
        format!("docker://127.0.0.1:{}/{name}", self.port)
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> usize {
        self.cuts.load(Ordering::Acquire)
    }
}

fn pass(client: &TcpStream, port: u16, bytes: usize, times: usize, then: Then, cuts: &AtomicUsize) -> Option<()> {
    let registry = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let (mut from_client, mut to_registry) = (client.try_clone().ok()?, registry.try_clone().ok()?);
    std::thread::spawn(move || {
        // Either side may go away first.
        let _ = std::io::copy(&mut from_client, &mut to_registry);
        let _ = to_registry.shutdown(Shutdown::Write);
    });
    let (mut registry, mut client) = (registry, client);
    let mut passed = 0;
    let mut block = [0; 4096];
    loop {
        let length = registry.read(&mut block).ok().filter(|length| *length > 0)?;
        passed += length;
        if passed > bytes
            && cuts.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < times).then_some(n + 1)).is_ok()
        {
            return client.shutdown(Shutdown::Both).ok();
        }
        if then == Then::Fail && cuts.load(Ordering::Acquire) >= times {
            return client.shutdown(Shutdown::Both).ok();
        }
        client.write_all(&block[..length]).ok()?;
    }
}
