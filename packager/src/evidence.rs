//! Use cases of saved evidence: reading it in all its forms, judging it, answering batches. No network, no home.

pub(crate) mod batch;
pub(crate) mod bundle;
pub(crate) mod expect;
pub(crate) mod input;
pub(crate) mod joint;
pub(crate) mod relayed;
pub(crate) mod tcb;
pub(crate) mod trust;
