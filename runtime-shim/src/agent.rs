//! The agent of a node: holds keys and leases for the container engines of the node, which ask it over a unix socket.

pub(crate) mod client;
pub(crate) mod protocol;
