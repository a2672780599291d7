//! The tests of `../service`, with the service's state in PostgreSQL; and what only a shared database can show.

mod replicas;
mod schemas;
#[path = "../service/main.rs"]
mod service;

use service::{guest, limits, rig};
