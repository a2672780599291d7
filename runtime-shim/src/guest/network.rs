//! A fixed IPv4 address for the guest, asked of the kernel in the messages of rtnetlink(7).

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use release_protocol::guest::{GuestNetwork, InterfaceAddress};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

use super::context;
use super::system::wait_for;

/// The loopback interface's number, always.
const LOOPBACK: u32 = 1;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
/// A request, to be acknowledged.
const REQUEST: u16 = 0x1 | 0x4;
/// What is asked for must not be there yet, and is made.
const CREATE: u16 = 0x400 | 0x200;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const INET: u8 = 2;
const IFF_UP: u32 = 1;

/// Brings up loopback and the first other interface, with its address, gateway and name servers.
pub(super) fn configure(network: &GuestNetwork) -> io::Result<()> {
    configure_loopback()?;
    let interface = wait_for("network interface", first_interface)?;
    let kernel = Kernel::connect()?;
    kernel.ask(&link_up(interface)).map_err(context("bring up the network interface"))?;
    let address = network.address;
    kernel.ask(&new_address(interface, address)).map_err(context(format!("take the address {address}")))?;
    if let Some(gateway) = network.gateway {
        kernel.ask(&default_route(interface, gateway)).map_err(context(format!("use the gateway {gateway}")))?;
    }
    let servers: Vec<String> = network.name_servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write("/etc/resolv.conf", servers.concat()).map_err(context("name the name servers"))
}

/// Brings up loopback; the kernel gives it its address.
pub(super) fn configure_loopback() -> io::Result<()> {
    Kernel::connect()?.ask(&link_up(LOOPBACK)).map_err(context("bring up loopback"))
}

/// The number of the first interface that is not loopback, by name.
fn first_interface() -> Option<u32> {
    let mut interfaces: Vec<_> = fs::read_dir("/sys/class/net").ok()?.filter_map(Result::ok).collect();
    interfaces.sort_by_key(fs::DirEntry::file_name);
    let numbers = interfaces.iter().filter_map(|interface| {
        fs::read_to_string(interface.path().join("ifindex")).ok()?.trim_end().parse::<u32>().ok()
    });
    numbers.into_iter().find(|number| *number != LOOPBACK)
}

/// A conversation with the kernel.
struct Kernel(OwnedFd);

impl Kernel {
    fn connect() -> io::Result<Self> {
        // Protocol 0 of this family is rtnetlink.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(|errno| context("talk to the kernel about the network")(errno.into()))?;
        Ok(Self(socket))
    }

    /// Sends one request and reads the kernel's answer to it.
    fn ask(&self, request: &[u8]) -> io::Result<()> {
        sendto(&self.0, request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut answer = [0; 4096];
        let (length, _) = recv(&self.0, &mut answer, RecvFlags::empty())?;
        acknowledged(answer.get(..length).unwrap_or_default())
    }
}

/// What an acknowledgement says: an error number, or zero.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is malformed");
    let kind = answer.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    let error = answer.get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        _ => Err(malformed()),
    }
}

fn link_up(interface: u32) -> Vec<u8> {
    // ifinfomsg: family and filling, type, index, flags, which flags change
    let body = [[0; 4], interface.to_ne_bytes(), IFF_UP.to_ne_bytes(), IFF_UP.to_ne_bytes()].concat();
    message(RTM_NEWLINK, REQUEST, &body)
}

fn new_address(interface: u32, address: InterfaceAddress) -> Vec<u8> {
    // ifaddrmsg: family, prefix length, flags, scope, index
    let mut body = vec![INET, address.prefix_length, 0, 0];
    body.extend_from_slice(&interface.to_ne_bytes());
    for kind in [IFA_LOCAL, IFA_ADDRESS] {
        body.extend_from_slice(&attribute(kind, address.address.octets()));
    }
    message(RTM_NEWADDR, REQUEST | CREATE, &body)
}

fn default_route(interface: u32, gateway: Ipv4Addr) -> Vec<u8> {
    const MAIN_TABLE: u8 = 254;
    const BY_BOOT: u8 = 3;
    const UNICAST: u8 = 1;
    // rtmsg: family, length of destination and source, type of service, table, origin, scope, type, flags
    let mut body = vec![INET, 0, 0, 0, MAIN_TABLE, BY_BOOT, 0, UNICAST, 0, 0, 0, 0];
    body.extend_from_slice(&attribute(RTA_GATEWAY, gateway.octets()));
    body.extend_from_slice(&attribute(RTA_OIF, interface.to_ne_bytes()));
    message(RTM_NEWROUTE, REQUEST | CREATE, &body)
}

/// An attribute of four bytes: its length with these four, its kind, its value.
fn attribute(kind: u16, value: [u8; 4]) -> [u8; 8] {
    let mut attribute = [0; 8];
    let parts = [8u16.to_ne_bytes(), kind.to_ne_bytes()].concat().into_iter().chain(value);
    attribute.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
    attribute
}

/// nlmsghdr: length with these sixteen, kind, flags, number, sender.
fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 16).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&flags.to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_its_own_length() {
        for message in
            [link_up(2), new_address(2, "10.0.2.15/24".parse().unwrap()), default_route(2, Ipv4Addr::new(10, 0, 2, 2))]
        {
            let length = u32::from_ne_bytes(message[..4].try_into().unwrap());
            assert_eq!(usize::try_from(length).unwrap(), message.len());
            assert_eq!(message.len() % 4, 0);
        }
    }

    #[test]
    fn an_answer_is_an_acknowledgement_or_the_kernels_error() {
        let answer = |error: i32| message(NLMSG_ERROR, 0, &error.to_ne_bytes());
        assert!(acknowledged(&answer(0)).is_ok());
        assert_eq!(acknowledged(&answer(-17)).unwrap_err().raw_os_error(), Some(17));
        assert!(acknowledged(&answer(i32::MIN)).is_err());
        for cut in 0..20 {
            assert!(acknowledged(&answer(0)[..cut]).is_err(), "cut to {cut}");
        }
    }

    #[test]
    fn loopback_is_up_already_or_may_not_be_touched_but_the_kernel_understands() {
        let kernel = Kernel::connect().unwrap();
        match kernel.ask(&link_up(LOOPBACK)) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::PermissionDenied),
        }
    }
}
