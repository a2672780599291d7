//! What whoever holds a lease, a shim or a relay, believes of the service that granted it: each grant and renewal by its
//! receipt, a log that has one history only, and a service whose clock goes as this machine's does.
//!
//! Knows nothing of how the service is asked.
#![forbid(unsafe_code)]

mod clock;
mod receipt;
mod refused;

pub use clock::{BootTime, ClockCheck, Diverged, Exchange, clocks_parted};
pub use receipt::{ReceiptBook, decision, history};
pub use refused::Refused;
