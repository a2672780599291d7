//! Full releases against a running service: challenge, evidence with a licence for a lease, key. Prints releases per second of
//! wall time and of the service's CPU time, latencies, and the service's memory, for several numbers of clients.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a failed step ends the measurement; its figures go to stdout"
)]

mod fill;
mod guest;
mod load;
mod options;
mod report;
mod stage;

use std::time::Duration;

use clap::Parser as _;

use crate::guest::Ask;
use crate::load::Load;
use crate::options::Options;
use crate::report::Run;
use crate::stage::Stage;

fn main() {
    // `cargo test` runs benches once to see that they work; this one takes minutes.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let options = Options::parse();
    if options.pin {
        // Before there are threads: they inherit it.
        let mut cores = rustix::thread::CpuSet::new();
        cores.set(1);
        rustix::thread::sched_setaffinity(None, &cores).expect("two cores");
    }
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("runtime")
        .block_on(measure(&options));
}

async fn measure(options: &Options) {
    let stage = Stage::set(options).await;
    stage.check_one_release().await;
    let mut runs = all(options, &stage).await;
    if options.leases.is_some() || options.entries.is_some() {
        fill::fill(&stage, options.leases.unwrap_or(0), options.entries.unwrap_or(0)).await;
        runs.extend(all(options, &stage).await);
    }
    if options.half_load {
        let most = runs.iter().filter(|run| run.ask == Ask::Release).map(|run| run.per_second).fold(0.0, f64::max);
        runs.push(load::open(&stage, most / 2.0, options.seconds()).await);
    }
    report::print(options, &stage.service, &runs);
}

/// Every kind of request with every number of clients.
async fn all(options: &Options, stage: &Stage) -> Vec<Run> {
    let mut runs = Vec::new();
    for ask in Ask::ALL {
        for clients in &options.clients {
            let load = Load { ask, clients: *clients, fresh: options.fresh_connections };
            // Caches, pools and the clock of the processor settle.
            load::closed(stage, load, Duration::from_secs(1)).await;
            runs.push(load::closed(stage, load, options.seconds()).await);
        }
    }
    runs
}
