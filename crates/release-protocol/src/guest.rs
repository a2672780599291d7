//! What a measured guest is told by its initial RAM disk: written by whoever builds the guest, read by the shim as its
//! first process. It is measured with the RAM disk, so nothing in it can be changed by the host.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where things lie in a measured guest's initial RAM disk.
pub mod path {
    /// The [`GuestConfig`](super::GuestConfig).
    pub const CONFIG: &str = "/etc/sealift/guest.json";
    /// The licence.
    pub const LICENSE: &str = "/etc/sealift/license";
    /// Registry credentials.
    pub const REGISTRY_AUTH: &str = "/etc/sealift/registry-auth.json";
    /// Further certificate authorities for registries.
    pub const REGISTRY_CA: &str = "/etc/sealift/registry-ca.pem";
    /// Certificate authorities of the world, where the platform's own programs look for them.
    pub const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
    /// The vendor's program, in a relay's guest.
    pub const RELAY: &str = "/usr/bin/sealift";
    /// Its home there, in the guest's memory.
    pub const RELAY_HOME: &str = "/var/lib/sealift/relay";
    /// A simulated platform whose guests it accepts.
    pub const SIMULATED_PLATFORM: &str = "/etc/sealift/simulated-platform";
    /// Kernel modules.
    pub const MODULES: &str = "/lib/modules";
    /// An empty directory, for the change from the kernel's own root.
    pub const ROOT: &str = "/sysroot";
}

/// The name of the virtio serial port on which a simulated platform serves its guest.
pub const SIMULATED_PORT: &str = "sealift.simulated.report";

/// What stands before the exit code in the line that the guest writes to its console last.
pub const EXIT_LINE: &str = "sealift-guest: exit ";

/// The version of [`GuestConfig`] that is written and read.
pub const GUEST_CONFIG_VERSION: u32 = 1;

/// What the guest's first process does before and with the shim.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GuestConfig {
    /// [`GUEST_CONFIG_VERSION`].
    pub version: u32,
    /// Files in [`path::MODULES`], in the order in which they are loaded.
    #[serde(default)]
    pub modules: Vec<String>,
    /// The network; none but loopback when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<GuestNetwork>,
    /// Attest on the simulated platform behind [`SIMULATED_PORT`]. It protects nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub simulated: bool,
    /// The shim's command line, without its name.
    pub arguments: Vec<String>,
    /// What runs in the shim's place: command lines, each once the one before has ended well. The last one's exit code is the
    /// guest's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<Vec<String>>,
}

/// A fixed address for the guest's first network interface.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GuestNetwork {
    /// The guest's own.
    pub address: InterfaceAddress,
    /// Where everything else is reached; only the own network when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<Ipv4Addr>,
}

/// An IPv4 address and the length of its network's prefix: `10.0.2.15/24`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct InterfaceAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// From 0 to 32.
    pub prefix_length: u8,
}

/// A text that is no [`InterfaceAddress`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an interface's address is written like 10.0.2.15/24")]
pub struct ParseInterfaceAddressError;

impl FromStr for InterfaceAddress {
    type Err = ParseInterfaceAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = text.split_once('/').ok_or(ParseInterfaceAddressError)?;
        let address = address.parse().map_err(|_| ParseInterfaceAddressError)?;
        match length.parse() {
            Ok(prefix_length @ 0..=32) => Ok(Self { address, prefix_length }),
            _ => Err(ParseInterfaceAddressError),
        }
    }
}

impl TryFrom<String> for InterfaceAddress {
    type Error = ParseInterfaceAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

impl From<InterfaceAddress> for String {
    fn from(address: InterfaceAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_member_is_refused() {
        let text = r#"{"version":1,"arguments":["doctor"]"#;
        assert!(serde_json::from_str::<GuestConfig>(&format!("{text}}}")).is_ok());
        assert!(serde_json::from_str::<GuestConfig>(&format!("{text},\"shell\":true}}")).is_err());
    }

    #[test]
    fn an_interface_address_is_an_address_and_a_prefix_length() {
        let address: InterfaceAddress = "10.0.2.15/24".parse().unwrap();
        assert_eq!((address.address, address.prefix_length), (Ipv4Addr::new(10, 0, 2, 15), 24));
        assert_eq!(address.to_string(), "10.0.2.15/24");
        for wrong in ["10.0.2.15", "10.0.2.15/33", "10.0.2/24", "10.0.2.15/", "/24"] {
            assert!(wrong.parse::<InterfaceAddress>().is_err(), "{wrong}");
        }
    }
}
