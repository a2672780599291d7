//! Where a key provider listens: on loopback, on a unix socket, or, said loudly, elsewhere.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use command_line::Failure;

/// The switches of the gRPC server.
#[derive(Debug, Args)]
pub struct ListenArgs {
    /// Serve the protocol over gRPC until SIGTERM, on `IP:PORT` or `unix:PATH`, instead of answering one request on stdin.
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<ServerAddress>,
    /// DANGER: serve on an address that other machines reach. gRPC is not encrypted here and asks nobody who they are.
    #[arg(long, requires = "listen")]
    pub dangerous_allow_remote: bool,
}

impl ListenArgs {
    /// Where to listen; `None` where one request is to be answered.
    ///
    /// # Errors
    /// For an address that other machines reach, unless that was asked for.
    pub fn address(&self) -> Result<Option<&ServerAddress>, Failure> {
        match &self.listen {
            Some(ServerAddress::Tcp(address)) if !address.ip().is_loopback() && !self.dangerous_allow_remote => {
                Err(Failure::usage(format!("`{address}` can be reached by other machines, and gRPC is not encrypted"))
                    .hint("listen on 127.0.0.1 or on a unix socket (`unix:PATH`)"))
            }
            other => Ok(other.as_ref()),
        }
    }
}

/// An address in the form that gRPC's clients take.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerAddress {
    /// `IP:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH` or `unix:///PATH`: a socket that its owner alone can use.
    Unix(PathBuf),
}

/// Why a text is no [`ServerAddress`].
#[derive(Debug)]
pub struct ParseAddressError;

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address is written IP:PORT or unix:PATH")
    }
}

impl std::error::Error for ParseAddressError {}

impl FromStr for ServerAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        match text.strip_prefix("unix:") {
            None => text.parse().map(Self::Tcp).map_err(|_| ParseAddressError),
            Some(path) => match path.strip_prefix("//").unwrap_or(path) {
                "" => Err(ParseAddressError),
                path => Ok(Self::Unix(path.into())),
            },
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(listen: &str, dangerous_allow_remote: bool) -> ListenArgs {
        ListenArgs { listen: Some(listen.parse().unwrap()), dangerous_allow_remote }
    }

    #[test]
    fn addresses_are_read_in_the_form_that_clients_take() {
        for (text, shown) in [
            ("127.0.0.1:50051", "127.0.0.1:50051"),
            ("[::1]:50051", "[::1]:50051"),
            ("unix:/run/keys", "unix:/run/keys"),
            ("unix:///run/keys", "unix:/run/keys"),
            ("unix:keys", "unix:keys"),
        ] {
            assert_eq!(text.parse::<ServerAddress>().unwrap().to_string(), shown);
        }
        for text in ["", "50051", "localhost:50051", "unix:", "unix://", "http://127.0.0.1:1"] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn other_machines_are_let_in_only_where_that_is_asked_for() {
        for near in ["127.0.0.1:1", "127.8.8.8:1", "[::1]:1", "unix:/run/keys"] {
            assert!(args(near, false).address().unwrap().is_some(), "{near}");
        }
        for far in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[::ffff:10.0.0.1]:1"] {
            assert!(args(far, false).address().unwrap_err().message.contains("other machines"), "{far}");
            assert!(args(far, true).address().unwrap().is_some(), "{far}");
        }
    }
}
