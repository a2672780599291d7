//! Clients at work: each as soon as it has its answer, or at a rate of their own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use end_to_end::process::Memory;
use futures_util::future::join_all;

use crate::guest::{Ask, Guest};
use crate::report::Run;
use crate::stage::Stage;

/// What is asked, by how many at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) ask: Ask,
    pub(crate) clients: usize,
    /// Whether each guest has a connection of its own.
    pub(crate) fresh: bool,
}

/// How many guests have their keys before the measurement, by second and client; more make them as they start.
const PREPARED: u64 = 1500;

/// Closed loop: every client asks again as soon as it has its answer.
pub(crate) async fn closed(stage: &Stage, load: Load, time: Duration) -> Run {
    let clients = load.clients as u64;
    let each = PREPARED.saturating_mul(time.as_secs()).div_ceil(clients);
    let workers: Vec<_> =
        (0..clients).map(|_| (stage.client(), (0..each).map(|_| Guest::new()).collect::<Vec<_>>())).collect();
    let before = Before::now(stage);
    let until = before.at + time;
    let latencies = join_all(workers.into_iter().map(|(client, guests)| work(stage, load, client, guests, until)));
    let latencies = latencies.await.into_iter().flatten().collect();
    before.after(stage, load.ask, load.clients, latencies).await
}

async fn work(
    stage: &Stage,
    load: Load,
    client: reqwest::Client,
    mut guests: Vec<Guest>,
    until: Instant,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let guest = guests.pop().unwrap_or_else(Guest::new);
        let client = if load.fresh { stage.client() } else { client.clone() };
        let started = Instant::now();
        guest.ask(stage, &client, load.ask).await;
        latencies.push(started.elapsed());
    }
    latencies
}

/// Open loop: full releases begin at `rate` a second, whether those before have ended or not. A release that begins late
/// since the clients are late is counted from when it should have begun.
pub(crate) async fn open(stage: &Stage, rate: f64, time: Duration) -> Run {
    let count = (rate * time.as_secs_f64()).max(1.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number of releases")]
    let count = count as u32;
    let mut guests: Vec<_> = (0..count).map(|_| Guest::new()).collect();
    let idle = Arc::new(Mutex::new(Vec::new()));
    let before = Before::now(stage);
    let releases = (0..count).map(|number| {
        let due = before.at + Duration::from_secs_f64(f64::from(number) / rate);
        let (guest, idle) = (guests.pop().unwrap_or_else(Guest::new), Arc::clone(&idle));
        async move {
            tokio::time::sleep_until(due.into()).await;
            let client = idle.lock().expect("clients").pop().unwrap_or_else(|| stage.client());
            guest.ask(stage, &client, Ask::Release).await;
            idle.lock().expect("clients").push(client);
            due.elapsed()
        }
    });
    let latencies = join_all(releases.collect::<Vec<_>>()).await;
    let clients = idle.lock().expect("clients").len();
    let run = before.after(stage, Ask::Release, clients, latencies).await;
    Run { open_loop: true, ..run }
}

/// What the service had cost before.
struct Before {
    at: Instant,
    cpu_seconds: f64,
    memory: Memory,
}

impl Before {
    fn now(stage: &Stage) -> Self {
        let (cpu_seconds, memory) = (stage.cpu_seconds(), stage.memory());
        Self { at: Instant::now(), cpu_seconds, memory }
    }

    async fn after(self, stage: &Stage, ask: Ask, clients: usize, mut latencies: Vec<Duration>) -> Run {
        let (wall, cpu_seconds, memory) = (self.at.elapsed(), stage.cpu_seconds() - self.cpu_seconds, stage.memory());
        let (leases, entries) = stage.stored().await;
        latencies.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "a number of releases")]
        let count = latencies.len() as f64;
        let percentile = |percent: usize| {
            let rank = (latencies.len() * percent).div_ceil(100).saturating_sub(1);
            latencies.get(rank).map_or(0.0, Duration::as_secs_f64) * 1000.0
        };
        Run {
            ask,
            clients,
            open_loop: false,
            count: latencies.len(),
            per_second: count / wall.as_secs_f64(),
            per_cpu_second: count / cpu_seconds.max(0.01),
            p50_ms: percentile(50),
            p99_ms: percentile(99),
            resident_before_kib: self.memory.resident_kib,
            resident_after_kib: memory.resident_kib,
            peak_kib: memory.peak_kib,
            leases,
            entries,
        }
    }
}
