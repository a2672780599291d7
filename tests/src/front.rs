//! One address in front of several services: connections go to them in turn, past those that are not there.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::spawn;

/// Takes turns from a loopback port; as long as the test lasts.
#[derive(Debug)]
pub struct Front {
    port: u16,
}

impl Front {
    /// In front of the services at these loopback ports.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(ports: &[u16]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("port");
        let port = listener.local_addr().expect("port").port();
        let ports = ports.to_vec();
        spawn(move || {
            for (turn, client) in listener.incoming().map_while(Result::ok).enumerate() {
                let from = turn % ports.len();
                let mut in_turn = ports[from..].iter().chain(&ports[..from]);
                // Nobody there: the client sees its connection end.
                if let Some(service) = in_turn.find_map(|port| TcpStream::connect(("127.0.0.1", *port)).ok()) {
                    pass(client, service);
                }
            }
        });
        Self { port }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn pass(client: TcpStream, service: TcpStream) {
    let (client, service) = (Arc::new(client), Arc::new(service));
    for (from, to) in [(Arc::clone(&client), Arc::clone(&service)), (service, client)] {
        spawn(move || {
            // Either side may go away first, and is missed by the other.
            if io::copy(&mut &*from, &mut &*to).is_err() {
                let _ = from.shutdown(Shutdown::Both);
            }
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}
