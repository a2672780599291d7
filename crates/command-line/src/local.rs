//! Names of this machine: those below `localhost` are loopback (RFC 6761, section 6.3), which not every resolver knows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::Url;

/// Where such names lead; the port is the URL's.
pub const LOOPBACK: [SocketAddr; 2] =
    [SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0), SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0)];

/// The URL's host, where it is a name below `localhost`; else a name that nobody asks for.
pub fn local_name(url: &Url) -> &str {
    url.host_str().filter(|host| host.ends_with(".localhost")).unwrap_or("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_below_localhost_are_this_machine() {
        for (url, name) in [
            ("https://tenant-a.localhost:8444/", "tenant-a.localhost"),
            ("https://TENANT-A.LOCALHOST/", "tenant-a.localhost"),
            ("https://localhost.example/", "localhost"),
            ("https://notlocalhost/", "localhost"),
            ("https://10.0.0.1/", "localhost"),
        ] {
            assert_eq!(local_name(&url.parse().unwrap()), name);
        }
    }
}
