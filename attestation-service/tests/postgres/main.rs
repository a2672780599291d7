//! The tests of `../service`, with the service's state in PostgreSQL; and what only a shared database can show.

mod replicas;
#[path = "../service/main.rs"]
mod service;

use service::{guest, limits, rig};
