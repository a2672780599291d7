//! One file a command, thin: settings in, use case, result out.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod bundle;
pub(crate) mod demo;
pub(crate) mod documentation;
pub(crate) mod evidence;
pub(crate) mod findings;
pub(crate) mod finish;
pub(crate) mod guest;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod keyprovider;
pub(crate) mod lease;
pub(crate) mod license;
pub(crate) mod measure;
pub(crate) mod pack;
pub(crate) mod platform;
pub(crate) mod policy;
pub(crate) mod product;
pub(crate) mod reference;
pub(crate) mod secret;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod table;
pub(crate) mod token;
pub(crate) mod verify;
