//! Measured guests: the initial RAM disk with the shim as its first process, a relay where it is one, and how it is launched.

pub(crate) mod boot;
pub(crate) mod cpio;
pub(crate) mod initrd;
pub(crate) mod launch;
mod modules;
mod program;
pub(crate) mod relay;
