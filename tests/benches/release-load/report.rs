//! The figures: a table for people, or one JSON document.

use serde_json::json;

use crate::guest::Ask;
use crate::options::Options;

/// One measurement.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) ask: Ask,
    pub(crate) clients: usize,
    /// Whether requests began at a rate of their own.
    pub(crate) open_loop: bool,
    pub(crate) count: usize,
    pub(crate) per_second: f64,
    /// By CPU second of the service.
    pub(crate) per_cpu_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) resident_before_kib: u64,
    pub(crate) resident_after_kib: u64,
    /// The most since the service started.
    pub(crate) peak_kib: u64,
    /// Live leases at the end.
    pub(crate) leases: u64,
    /// Entries of the audit log at the end.
    pub(crate) entries: u64,
}

pub(crate) fn print(options: &Options, service: &str, runs: &[Run]) {
    if options.json {
        let runs: Vec<_> = runs
            .iter()
            .map(|run| {
                json!({
                    "ask": run.ask.name(), "clients": run.clients, "open_loop": run.open_loop, "count": run.count,
                    "per_second": run.per_second, "per_cpu_second": run.per_cpu_second,
                    "p50_ms": run.p50_ms, "p99_ms": run.p99_ms,
                    "resident_before_kib": run.resident_before_kib, "resident_after_kib": run.resident_after_kib,
                    "peak_kib": run.peak_kib, "leases": run.leases, "entries": run.entries,
                })
            })
            .collect();
        let document = json!({
            "service": service, "seconds": options.seconds, "pinned": options.pin,
            "fresh_connections": options.fresh_connections, "runs": runs,
        });
        return println!("{document:#}");
    }
    let place = if options.pin { "service on core 0, clients on core 1" } else { "service and clients on all cores" };
    let connections = if options.fresh_connections { "a connection a release" } else { "a connection a client" };
    println!("{service}; {place}; {connections}; {} s each", options.seconds);
    println!(
        "{:<8} {:>7} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "what", "clients", "per s", "per CPU s", "p50 ms", "p99 ms", "RSS MiB", "after", "peak", "leases", "entries"
    );
    for run in runs {
        println!(
            "{:<8} {:>7} {:>8.1} {:>9.1} {:>8.2} {:>8.2} {:>8.1} {:>8.1} {:>8.1} {:>9} {:>9}{}",
            run.ask.name(),
            run.clients,
            run.per_second,
            run.per_cpu_second,
            run.p50_ms,
            run.p99_ms,
            mib(run.resident_before_kib),
            mib(run.resident_after_kib),
            mib(run.peak_kib),
            run.leases,
            run.entries,
            if run.open_loop { "  half load, open loop" } else { "" },
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory of a process, shown with one digit")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
