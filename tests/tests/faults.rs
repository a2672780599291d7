//! The service under load while something breaks again and again: the service itself, one of its replicas, its database, its
//! disk, its clock. Nothing is released without its entry, no entry is without its effect, no seat is lost or doubled, and
//! the log still proves itself. `SEALIFT_FAULT_ROUNDS` says how often it breaks; for long runs that nextest would end,
//! `cargo test -p end-to-end --test faults -- --nocapture NAME`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use end_to_end::books::{Books, at};
use end_to_end::disk::Disk;
use end_to_end::postgres::Cluster;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::waiting::finish;
use jiff::{Timestamp, ToSpan as _};
use rustix::process::{Pid, Signal, kill_process};

/// How many guests start in each round.
const GUESTS: usize = 3;
/// For how many guests the licence is: those that lost the service keep a seat until their lease has lapsed.
const SEATS: usize = 5;
/// How long that is: lease and grace, milliseconds.
const HELD_FOR: i64 = 10_000;
/// What the scene's image ends with.
const DONE: i32 = 7;
/// What a shim ends with when all seats are taken, and when the service is out of reach.
const TURNED_AWAY: [i32; 2] = [125, 126];

fn rounds(by_default: usize) -> usize {
    std::env::var("SEALIFT_FAULT_ROUNDS").map_or(by_default, |rounds| rounds.parse().unwrap())
}

/// Below `bound`, another one each time.
fn random(bound: usize) -> usize {
    usize::try_from(RandomState::new().hash_one(0) % u64::try_from(bound).unwrap()).unwrap()
}

#[expect(clippy::print_stderr, reason = "who runs many rounds wants to know")]
fn print(figures: &str) {
    eprintln!("{figures}");
}

/// A scene with a licence that is short of seats, and how its guests ended.
struct Load {
    scene: Scene,
    id: String,
    license: String,
    /// How long the guests of a round take where nothing breaks.
    span: Duration,
    ended: Vec<i32>,
}

impl Load {
    fn on(scene: Scene) -> Self {
        let terms = ["--seats", &SEATS.to_string(), "--lease", "8s", "--grace", "2s"];
        let (id, license) = scene.vendor.license(PRODUCT, &terms);
        let license = license.display().to_string();
        let mut load = Self { scene, id, license, span: Duration::ZERO, ended: Vec::new() };
        let start = Instant::now();
        load.undisturbed();
        load.span = start.elapsed();
        assert_eq!(load.ended, [DONE; GUESTS], "{}", load.scene.vendor.service_log());
        load
    }

    fn guest(&self) -> Child {
        let args = ["run", &self.scene.sealed, "--license", &self.license];
        let mut command = self.scene.vendor.guest_command(&self.scene.vendor.shim(), args);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Lets `fault` happen so many times, at any moment, while guests come and go.
    fn under(&mut self, times: usize, mut fault: impl FnMut(&mut Scene)) {
        let mut guests: Vec<Child> = Vec::new();
        for _ in 0..times {
            guests.retain_mut(|guest| match guest.try_wait().unwrap() {
                Some(status) => {
                    self.ended.push(status.code().unwrap_or(-1));
                    false
                }
                None => true,
            });
            guests.resize_with(GUESTS, || self.guest());
            std::thread::sleep(self.span * u32::try_from(random(50)).unwrap() / 100);
            fault(&mut self.scene);
        }
        self.ended.extend(guests.into_iter().map(|mut guest| guest.wait().unwrap().code().unwrap_or(-1)));
    }

    /// Lets guests start, and waits until they have ended.
    fn undisturbed(&mut self) {
        let guests: Vec<Child> = (0..GUESTS).map(|_| self.guest()).collect();
        self.ended.extend(guests.into_iter().map(|mut guest| guest.wait().unwrap().code().unwrap_or(-1)));
    }

    #[track_caller]
    fn assert_sound(&self) {
        let Self { scene, ended, .. } = self;
        let count = |code: i32| ended.iter().filter(|other| **other == code).count();
        let turned_away = TURNED_AWAY.map(count);
        print(&format!("{} guests: {} ran, {turned_away:?} were turned away", ended.len(), count(DONE)));
        assert_eq!(count(DONE) + turned_away.iter().sum::<usize>(), ended.len(), "{ended:?}");
        // It goes on by itself.
        assert_eq!(scene.run().code, DONE, "{}", scene.vendor.service_log());
        let books = Books::of(&scene.vendor);
        let released = books.assert_sound(scene).values().filter(|told| told.released).count();
        assert!(released > count(DONE), "{released} were given keys, {} ran, and one more", count(DONE));
        books.assert_seats(&self.id, SEATS, HELD_FOR);
    }
}

#[tokio::test]
async fn a_service_that_is_killed_again_and_again_forgets_nothing_and_invents_nothing() {
    let mut load = Load::on(Scene::set().await);
    load.under(rounds(10), |scene| {
        scene.vendor.stop_service();
        scene.vendor.serve();
    });
    load.assert_sound();
}

#[tokio::test]
async fn replicas_that_are_killed_in_turn_forget_nothing_and_invent_nothing() {
    const REPLICAS: usize = 3;
    let database = Cluster::start();
    let mut load = Load::on(Scene::set_on(&database.url(), REPLICAS).await);
    load.under(rounds(10), |scene| {
        let replica = random(REPLICAS);
        scene.vendor.stop_replica(replica);
        scene.vendor.serve_replica(replica);
    });
    load.assert_sound();
}

#[tokio::test]
async fn replicas_whose_database_is_killed_again_and_again_go_on_by_themselves() {
    let mut database = Cluster::start();
    let mut load = Load::on(Scene::set_on(&database.url(), 3).await);
    load.under(rounds(5), |_| {
        database.kill();
        std::thread::sleep(Duration::from_millis(u64::try_from(random(1000)).unwrap()));
        database.serve();
    });
    load.assert_sound();
}

#[tokio::test]
async fn a_service_whose_disk_is_full_releases_nothing_and_goes_on_once_there_is_room() {
    let mut scene = Scene::set().await;
    scene.vendor.stop_service();
    let disk = Disk::under(&scene.vendor.home().join("service"), 12);
    scene.vendor.serve();
    let mut load = Load::on(scene);
    for _ in 0..rounds(3) {
        load.under(1, |_| disk.fill(u64::try_from(random(100_000)).unwrap()));
        // Until it is full indeed: nobody gets a key any more.
        disk.fill(0);
        load.undisturbed();
        assert!(!load.ended[load.ended.len() - GUESTS..].contains(&DONE), "{:?}", load.ended);
        disk.make_room();
        assert_eq!(load.scene.run().code, DONE, "{}", load.scene.vendor.service_log());
    }
    load.assert_sound();
}

/// Workloads wait, and every one of them lives to see a jump.
#[tokio::test]
async fn a_clock_that_jumps_doubles_no_seat_and_brings_no_expired_licence_back() {
    const SEATS: usize = 2;
    const HELD_FOR: i64 = 606_000;
    let mut scene = Scene::set().await;
    let (from, until) = (Timestamp::now() - 1.hour(), Timestamp::now() + 15.minutes());
    let terms = [("--from", from.to_string()), ("--until", until.to_string()), ("--seats", SEATS.to_string())];
    let terms = terms.iter().flat_map(|(name, value)| [*name, value]).chain(["--lease", "6s", "--grace", "10m"]);
    let (id, license) = scene.vendor.license(PRODUCT, &terms.collect::<Vec<_>>());
    let mut waiting = Vec::new();
    let mut refused = 0;
    for round in 0..rounds(5) {
        scene.vendor.stop_service();
        // One ends while the service is away, which keeps its lease.
        waiting.pop().into_iter().for_each(stop);
        // Forwards, past every lease and sometimes past the licence; and back, where they would have lived.
        scene.vendor.serve_ahead([0, 12, 1, -20, 30][round % 5]);
        for (child, stdout) in waiting.drain(..) {
            let (code, _, stderr) = finish(child, stdout);
            assert_eq!(code, 127, "{stderr}");
        }
        for _ in 0..SEATS {
            match wait_or_end(&scene, &license.display().to_string()) {
                Ok(guest) => waiting.push(guest),
                // Refused by the licence, or as evidence that is not yet valid.
                Err((code, _, stderr)) => {
                    assert!([124, 125].contains(&code), "{code}: {stderr}");
                    refused += 1;
                }
            }
        }
    }
    waiting.into_iter().for_each(stop);
    scene.vendor.stop_service();
    scene.vendor.serve();
    let books = Books::of(&scene.vendor);
    books.assert_sound(&scene);
    books.assert_seats(&id, SEATS, HELD_FOR);
    let gives = ["lease_granted", "lease_renewed", "key_released"];
    for entry in books.entries.iter().filter(|entry| entry["body"]["license"] == *id) {
        let given = gives.contains(&entry["kind"].as_str().unwrap());
        assert!(!given || at(entry) < until.as_millisecond(), "after the licence's end: {entry}");
    }
    assert!(refused > 0, "no jump went past the licence");
}

type Guest = (Child, BufReader<ChildStdout>);

/// Starts a workload that waits; how it ended where it did not get so far.
fn wait_or_end(scene: &Scene, license: &str) -> Result<Guest, (i32, String, String)> {
    let args = ["run", &scene.sealed, "--license", license, "--", "wait"];
    let mut command = scene.vendor.guest_command(&scene.vendor.shim(), args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let is_ready = stdout.by_ref().lines().any(|line| line.unwrap() == "ready");
    if is_ready { Ok((child, stdout)) } else { Err(finish(child, stdout)) }
}

fn stop((child, stdout): Guest) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(finish(child, stdout).0, 0);
}
