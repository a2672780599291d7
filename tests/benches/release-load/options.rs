//! What can be chosen about the measurement.

use std::time::Duration;

/// Measures full releases against a running service.
#[derive(Debug, clap::Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Options {
    /// How many clients ask at once, each as soon as it has its answer; one measurement a number.
    #[arg(long, value_name = "N", value_delimiter = ',', default_values_t = [1, 64])]
    pub(crate) clients: Vec<usize>,
    /// How long each measurement takes.
    #[arg(long, value_name = "S", default_value_t = 10)]
    pub(crate) seconds: u64,
    /// The service's database, passed on to `sealift serve`.
    #[arg(long, value_name = "URL")]
    pub(crate) database: Option<String>,
    /// Measure again once there are so many live leases, made by attestations.
    #[arg(long, value_name = "N")]
    pub(crate) leases: Option<u64>,
    /// Measure again once the audit log has so many entries, made by key releases.
    #[arg(long, value_name = "N")]
    pub(crate) entries: Option<u64>,
    /// Measure latencies at half of the most that was measured: requests begin on time, however long others take.
    #[arg(long)]
    pub(crate) half_load: bool,
    /// The service on core 0 alone, the clients on core 1.
    #[arg(long)]
    pub(crate) pin: bool,
    /// A new connection for each release, as guests that start have; otherwise each client keeps its own.
    #[arg(long)]
    pub(crate) fresh_connections: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(crate) json: bool,
    /// Cargo adds it.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    pub(crate) fn seconds(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}
