//! A relay at a site: it holds seats of a vendor's licence, its guests run by it alone, and all ends with its authority.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use end_to_end::peer::{program, run};
use end_to_end::registry::free_port;
use end_to_end::running::Running;
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::waiting::{finish, start_waiting};
use serde_json::Value;

/// A relay's home beside the vendor's.
struct Relay {
    home: PathBuf,
    license: PathBuf,
    id: String,
}

impl Relay {
    /// Makes the home, and the vendor's licence and policy for it.
    fn prepare(scene: &Scene, more: &[&str]) -> Self {
        let vendor = &scene.vendor;
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../policies/relay.rego");
        vendor.sealift(["policy", "set", "--product", PRODUCT, policy]).succeeded();
        let measurement = vendor.measurement(&program("sealift"));
        let label = ["--label", "relay: site"];
        vendor
            .sealift(["reference", "add", "--product", PRODUCT, "--digest", &measurement].iter().chain(&label))
            .succeeded();
        let (id, license) = vendor.license(PRODUCT, &[&["--relay"], more].concat());
        let home = scene.scratch.path().join("relay");
        let mut init = Command::new(program("sealift"));
        let listen = format!("127.0.0.1:{}", free_port());
        run(init.arg("--home").arg(&home).args(["init", "--listen", &listen])).succeeded();
        Self { home, license, id }
    }

    /// `serve --relay` in a simulated guest, not yet run.
    fn serve(&self, scene: &Scene) -> Command {
        let mut command = scene.vendor.command(["simulate", "launch", "--initrd"]);
        command.arg(program("sealift")).arg("--").arg("--home").arg(&self.home).args(["serve", "--offline"]);
        command
            .arg("--allow-simulated")
            .arg("--simulated-platform")
            .arg(scene.vendor.home().join("simulated-platform"));
        command.arg("--relay").arg(&self.license);
        command
    }

    fn start(&self, scene: &Scene) -> Running {
        Running::start(&mut self.serve(scene), &self.log())
    }

    fn log(&self) -> PathBuf {
        self.home.with_file_name("relay.log")
    }

    fn child_license(&self) -> String {
        self.home.join("child.license").display().to_string()
    }

    fn sealift(&self, args: &[&str]) -> end_to_end::peer::Said {
        run(Command::new(program("sealift")).arg("--home").arg(&self.home).args(args))
    }

    /// How many image keys stand in its database.
    fn keys(&self) -> String {
        let database = fs::read_dir(self.home.join("service")).unwrap().map(|entry| entry.unwrap().path());
        let database = database.into_iter().find(|path| path.extension().is_some_and(|end| end == "db")).unwrap();
        let count = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM image_key').fetchone()[0])";
        run(Command::new("python3").args(["-c", count]).arg(database)).succeeded().stdout.trim().to_owned()
    }
}

/// A process that ends by itself.
fn ended(mut child: Child) -> i32 {
    child.wait().unwrap().code().unwrap()
}

#[tokio::test]
async fn guests_run_by_the_relay_while_the_vendor_is_away_and_stop_when_it_is_revoked() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &["--seats", "1", "--lease", "6s", "--grace", "1m"]);
    let mut serving = relay.serve(&scene);
    let log = fs::File::create(relay.log()).unwrap();
    let serving = serving.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    end_to_end_wait(&relay);
    let license = relay.child_license();

    let (child, stdout) = start_waiting(&scene.vendor, &scene.sealed, &license, "embedded");
    let refused = scene.vendor.guest(["run", &scene.sealed, "--license", &license]);
    assert_eq!(refused.code, 125, "{}", refused.stderr);
    assert!(refused.stderr.contains("seats"), "{}", refused.stderr);

    // Longer than the guest's lease: only the relay can have renewed it.
    scene.vendor.stop_service();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let leases = relay.sealift(&["--output", "json", "lease", "list"]).succeeded();
    let leases: Vec<Value> = serde_json::from_str(&leases.stdout).unwrap();
    assert!(leases.iter().any(|lease| lease["state"] == "live" || lease["ended_at"].is_null()), "{leases:?}");
    assert!(fs::read_to_string(relay.log()).unwrap().contains("the relay can go on for"));
    scene.vendor.serve();

    let issue = ["license", "issue", "--product", PRODUCT, "--customer", "site"];
    let refused = relay.sealift(&issue);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("changed by the vendor alone"), "{}", refused.stderr);
    assert_eq!(relay.keys(), "1");

    scene.vendor.sealift(["license", "revoke", &relay.id, "--reason", "returned"]).succeeded();
    let (code, _, stderr) = finish(child, stdout);
    assert_eq!(code, 127, "{stderr}");
    assert_eq!(ended(serving), 7, "{}", fs::read_to_string(relay.log()).unwrap());
    let said = fs::read_to_string(relay.log()).unwrap();
    assert!(said.contains("the relay lost its authority") && said.contains("returned"), "{said}");
    assert_eq!(relay.keys(), "0");
    assert!(!relay.home.join("child.license").exists());
    let refused = relay.sealift(&["serve", "--offline"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("is the home of a relay"), "{}", refused.stderr);
    let again = run(&mut relay.serve(&scene));
    assert_eq!(again.code, 5, "{}", again.stderr);
}

#[tokio::test]
async fn a_relay_ends_when_the_vendor_stays_away_and_serves_again_under_a_new_authority() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &["--lease", "3s", "--grace", "3s"]);
    let running = relay.start(&scene);
    let first = fs::read_to_string(relay.child_license()).unwrap();
    let said = scene.vendor.guest(["run", &scene.sealed, "--license", &relay.child_license()]);
    assert_eq!(said.code, 7, "the workload's own code: {}", said.stderr);
    scene.vendor.stop_service();
    let (log, mut waited) = (relay.log(), 0);
    while !fs::read_to_string(&log).unwrap().contains("the relay lost its authority") {
        tokio::time::sleep(Duration::from_millis(200)).await;
        waited += 1;
        assert!(waited < 150, "{}", fs::read_to_string(&log).unwrap());
    }
    drop(running);
    assert_eq!(relay.keys(), "0");
    scene.vendor.serve();
    let _running = relay.start(&scene);
    assert_ne!(fs::read_to_string(relay.child_license()).unwrap(), first);
    let said = scene.vendor.guest(["run", &scene.sealed, "--license", &relay.child_license()]);
    assert_eq!(said.code, 7, "the workload's own code: {}", said.stderr);
}

#[tokio::test]
async fn what_is_no_relays_licence_or_no_blank_home_makes_no_relay() {
    let mut scene = Scene::set().await;
    let relay = Relay::prepare(&scene, &[]);
    scene.vendor.stop_service();
    let license = relay.license.display().to_string();
    let serve = ["serve", "--allow-simulated", "--offline", "--relay", &license];
    scene.vendor.sealift(serve).failed(3, "has products or licences of its own");
    scene.vendor.serve();
    let wrong = Relay { license: scene.license.clone().into(), ..relay };
    let said = run(&mut wrong.serve(&scene));
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("is for workloads, not for a relay"), "{}", said.stderr);
}

/// Waits until the relay has written the licence for its guests and serves.
fn end_to_end_wait(relay: &Relay) {
    for _ in 0..150 {
        let said = fs::read_to_string(relay.log()).unwrap();
        if said.contains("serving on") {
            return;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    panic!("the relay does not serve: {}", fs::read_to_string(relay.log()).unwrap());
}
