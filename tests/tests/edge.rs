//! Guests at the edge: started and run without the service, for as long as they may and no longer; renewed by files.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStderr, Stdio};
use std::time::{Duration, Instant};

use end_to_end::edge::{Edge, Place};
use end_to_end::peer::{Said, peer, run};
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::waiting::{finish, wait_for_words};
use serde_json::{Value, json};

/// The workload's own code.
const RAN: i32 = 7;
const DENIED: i32 = 125;
const UNAVAILABLE: i32 = 126;
const UNVERIFIED: i32 = 124;

#[track_caller]
fn expect(said: &Said, code: i32, words: &str) {
    assert_eq!(said.code, code, "{}", said.stderr);
    assert!(said.stderr.contains(words), "`{words}` is not in {}", said.stderr);
}

/// The clock is the guest's own, set ahead from outside; its allowance is of three days.
#[tokio::test]
async fn a_guest_that_is_cut_off_starts_for_seventy_two_hours_and_not_after_them_nor_with_its_clock_turned_back() {
    let edge = Edge::set(&["--lease", "10m", "--offline", "72h"]).await;
    expect(&edge.start(Place::CutOff(0)), UNAVAILABLE, "there is no sealed state of this image and licence");
    expect(&edge.start(Place::Connected), RAN, "the keys are kept sealed to this guest");
    expect(&edge.start(Place::CutOff(0)), RAN, "starting from the sealed state");
    expect(&edge.start(Place::CutOff(71)), RAN, "starting from the sealed state");
    expect(&edge.start(Place::CutOff(70)), DENIED, "clock was turned back");
    expect(&edge.start(Place::CutOff(72)), DENIED, "the offline allowance of 259200 s is over");
    expect(&edge.start(Place::CutOff(71)), DENIED, "clock was turned back");
    // Where the service answers, all is as before, and it is the same lease on its one seat.
    expect(&edge.start(Place::Connected), RAN, "the keys are kept sealed to this guest");
    let leases = edge.scene.vendor.sealift(["--output", "json", "lease", "list"]).succeeded().stdout;
    let leases: Vec<Value> = serde_json::from_str(&leases).unwrap();
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert!(leases[0]["offline_until"].is_string(), "{leases:?}");
}

#[tokio::test]
async fn what_runs_outlives_its_lease_without_the_service_and_stops_when_the_allowance_is_over() {
    let mut edge = Edge::set(&["--lease", "2s", "--grace", "0s", "--offline", "12s"]).await;
    let running = start_waiting(&edge);
    edge.scene.vendor.stop_service();
    let ran = running.wait_until_lost();
    assert!((Duration::from_secs(8)..Duration::from_secs(15)).contains(&ran), "{ran:?}");
    edge.scene.vendor.assert_nothing_left();
    let wait = ["--", "wait"];
    let again = edge.start_from(&edge.scene.vendor.shim(), Place::Connected, &edge.kept, &edge.license, &wait);
    expect(&again, DENIED, "the offline allowance of 12 s is over");
}

#[tokio::test]
async fn an_allowance_that_the_policy_takes_away_is_gone_for_what_runs_too() {
    let mut edge = Edge::set(&["--lease", "3s", "--grace", "0s", "--offline", "72h"]).await;
    let running = start_waiting(&edge);
    let policy = edge.scene.scratch.path().join("policy.rego");
    fs::write(&policy, "package sealift.release\nallow := true\nobligations := {\"offline_seconds\": 0}\n").unwrap();
    let file = edge.file();
    run(edge.scene.vendor.command(["policy", "set", "--product", PRODUCT]).arg(&policy)).succeeded();
    let until = Instant::now() + Duration::from_secs(20);
    while file.exists() {
        assert!(Instant::now() < until, "the state is kept");
        std::thread::sleep(Duration::from_millis(50));
    }
    edge.scene.vendor.stop_service();
    let ran = running.wait_until_lost();
    assert!(ran < Duration::from_secs(20), "{ran:?}");
    expect(&edge.start(Place::Connected), UNAVAILABLE, "there is no sealed state");
}

/// Starts a workload that waits.
fn start_waiting(edge: &Edge) -> RunningGuest {
    let kept = edge.kept.display().to_string();
    let args = ["run", &edge.scene.sealed, "--license", &edge.license, "--offline-state", &kept, "--", "wait"];
    let mut command = edge.guest(&edge.scene.vendor.shim(), Place::Connected, &args);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    wait_for_words(&mut stderr, "running under");
    RunningGuest { child, stderr, since: Instant::now() }
}

/// A workload that runs, seen from the moment at which it did.
struct RunningGuest {
    child: Child,
    stderr: BufReader<ChildStderr>,
    since: Instant,
}

impl RunningGuest {
    /// How long it ran until its lease was lost.
    fn wait_until_lost(mut self) -> Duration {
        wait_for_words(&mut self.stderr, "the workload can go on for");
        let stdout = BufReader::new(self.child.stdout.take().unwrap());
        let mut stderr = self.stderr;
        let rest = std::thread::spawn(move || wait_for_words(&mut stderr, "the lease was lost"));
        let (code, _, _) = finish(self.child, stdout);
        assert_eq!(code, 127);
        rest.join().unwrap();
        self.since.elapsed()
    }
}

#[tokio::test]
async fn the_sealed_state_opens_for_its_own_guest_its_own_command_and_whole_only() {
    let mut edge = Edge::set(&["--offline", "72h"]).await;
    expect(&edge.start(Place::Connected), RAN, "kept sealed");
    edge.scene.vendor.stop_service();
    let own = edge.scene.vendor.shim();

    let other = edge.scene.scratch.path().join("another-shim");
    let mut program = fs::read(&own).unwrap();
    program.push(0);
    fs::write(&other, program).unwrap();
    fs::set_permissions(&other, fs::metadata(&own).unwrap().permissions()).unwrap();
    let said = edge.start_from(&other, Place::Connected, &edge.kept, &edge.license, &[]);
    expect(&said, UNVERIFIED, "does not open");

    let said = edge.start_from(&own, Place::Connected, &edge.kept, &edge.license, &["--", "another"]);
    expect(&said, DENIED, "only the command that was attested can run");

    let file = edge.file();
    let whole = fs::read(&file).unwrap();
    for position in [3, 20, whole.len() / 2, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[position] ^= 1;
        fs::write(&file, changed).unwrap();
        expect(&edge.start(Place::Connected), UNVERIFIED, "does not open");
    }
    fs::write(&file, whole).unwrap();
    expect(&edge.start(Place::Connected), RAN, "starting from the sealed state");
}

#[tokio::test]
async fn a_refusal_of_the_service_deletes_what_was_kept_and_its_silence_does_not() {
    let mut edge = Edge::set(&["--offline", "72h"]).await;
    expect(&edge.start(Place::Connected), RAN, "kept sealed");
    let revoke = ["license", "revoke", &edge.id, "--reason", "contract ended"];
    let told = edge.scene.vendor.sealift(revoke).succeeded().stdout;
    assert!(told.contains("1 of them keep their keys sealed"), "{told}");
    // Nobody has told the guest.
    expect(&edge.start(Place::CutOff(1)), RAN, "starting from the sealed state");
    expect(&edge.start(Place::Connected), DENIED, "contract ended");
    edge.scene.vendor.stop_service();
    expect(&edge.start(Place::Connected), UNAVAILABLE, "there is no sealed state");
}

#[tokio::test]
async fn without_an_allowance_nothing_is_kept_and_the_shim_says_so() {
    let mut edge = Edge::set(&[]).await;
    expect(&edge.start(Place::Connected), RAN, "nothing is kept sealed");
    assert!(!fs::read_dir(&edge.kept).unwrap().any(|entry| entry.unwrap().path().ends_with(".offline")));
    edge.scene.vendor.stop_service();
    expect(&edge.start(Place::Connected), UNAVAILABLE, "there is no sealed state");
    let secret = edge.start_from(
        &edge.scene.vendor.shim(),
        Place::Connected,
        &edge.kept,
        &edge.license,
        &["--secret", "config/a=/run/a"],
    );
    expect(&secret, 122, "cannot be used with");
}

#[tokio::test]
async fn a_renewal_by_file_counts_from_its_request_and_is_good_once_and_for_one_guest() {
    let edge = Edge::set(&["--offline", "72h", "--seats", "2"]).await;
    expect(&edge.start(Place::Connected), RAN, "kept sealed");
    let nothing = edge.scene.scratch.path().join("nothing");
    let early = edge.accept(Place::Connected, Path::new(&edge.license), &edge.kept);
    expect(&early, 3, "no answer to a request for renewal");

    let request = edge.request(Place::CutOff(50), "request.json");
    let (said, answer) = edge.answer(&request, "answer.json");
    said.succeeded();
    let sizes = [&request, &answer].map(|file| fs::metadata(file).unwrap().len());
    assert!(sizes[0] < 16_000 && sizes[1] < 6_000, "files that are carried are small: {sizes:?}");
    let text = fs::read_to_string(&answer).unwrap();
    assert!(!text.contains("symkey") && !text.contains("encrypted_key"), "{text}");

    // Another guest of the same licence, whose own request waits.
    let other = Edge { kept: edge.scene.scratch.path().join("other"), scene: edge.scene, ..edge };
    expect(&other.start(Place::Connected), RAN, "kept sealed");
    other.request(Place::CutOff(50), "other.json");
    expect(&other.accept(Place::CutOff(51), &answer, &other.kept), 4, "of another lease");
    let edge = Edge { kept: nothing.with_file_name("kept"), ..other };
    expect(&edge.accept(Place::CutOff(51), &answer, &nothing), 3, "there is no sealed state");

    edge.accept(Place::CutOff(51), &answer, &edge.kept).succeeded();
    expect(&edge.accept(Place::CutOff(51), &answer, &edge.kept), 4, "is older than what this guest knows");
    expect(&edge.start(Place::CutOff(121)), RAN, "starting from the sealed state");
    expect(&edge.start(Place::CutOff(122)), DENIED, "the offline allowance of 259200 s is over");

    let (twice, _) = edge.answer(&request, "twice.json");
    expect(&twice, 5, "this request was answered already");
    let (exists, _) = edge.answer(&request, "answer.json");
    expect(&exists, 3, "exists already");
    let (wrong, _) = edge.answer(&answer, "wrong.json");
    expect(&wrong, 3, "is no request for a renewal");
}

#[tokio::test]
async fn a_renewal_by_file_is_refused_to_a_revoked_licence_and_a_forged_answer_by_the_guest() {
    let edge = Edge::set(&["--offline", "72h"]).await;
    expect(&edge.start(Place::Connected), RAN, "kept sealed");
    let request = edge.request(Place::CutOff(1), "request.json");
    let (said, answer) = edge.answer(&request, "answer.json");
    said.succeeded();
    let mut forged: Value = serde_json::from_slice(&fs::read(&answer).unwrap()).unwrap();
    let entry = forged["receipt"]["entry"].as_str().unwrap();
    let entry = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, entry).unwrap();
    let entry = String::from_utf8(entry).unwrap().replace("\"offline_seconds\":259200", "\"offline_seconds\":959200");
    forged["receipt"]["entry"] = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, entry).into();
    let file = edge.scene.scratch.path().join("forged.json");
    fs::write(&file, forged.to_string()).unwrap();
    expect(&edge.accept(Place::CutOff(1), &file, &edge.kept), 4, "proves nothing");

    let mut forked: Value = serde_json::from_slice(&fs::read(&answer).unwrap()).unwrap();
    let proof = forked["consistency"].as_array_mut().unwrap();
    proof[0] = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, [7; 32]).into();
    fs::write(&file, forked.to_string()).unwrap();
    expect(&edge.accept(Place::CutOff(1), &file, &edge.kept), 4, "audit log is not what it was");

    edge.accept(Place::CutOff(1), &answer, &edge.kept).succeeded();
    let request = edge.request(Place::CutOff(2), "later.json");
    edge.scene.vendor.sealift(["license", "revoke", &edge.id, "--reason", "contract ended"]).succeeded();
    let (said, _) = edge.answer(&request, "refused.json");
    expect(&said, 5, "contract ended");
}

/// What `zbarimg` reads from the pictures of a folder, a line for each.
fn scanned(folder: &Path) -> Vec<String> {
    let mut pictures: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    pictures.sort();
    for (index, picture) in pictures.iter().enumerate() {
        assert!(picture.ends_with(format!("{}-of-{}.png", index + 1, pictures.len())), "{pictures:?}");
    }
    let said = run(peer("zbarimg").args(["--quiet", "--raw"]).args(&pictures)).succeeded();
    // Now and then it takes the noise of a code for a product's.
    let lines = said.stdout.lines().filter(|line| line.starts_with("SEALIFT1 RENEWAL ")).map(ToOwned::to_owned);
    let lines: Vec<String> = lines.collect();
    assert_eq!(lines.len(), pictures.len(), "{}", said.stderr);
    lines
}

#[tokio::test]
async fn a_renewal_goes_and_comes_as_qr_codes_in_any_order_and_not_with_one_missing_or_changed() {
    let edge = Edge::set(&["--offline", "72h"]).await;
    expect(&edge.start(Place::Connected), RAN, "kept sealed");
    let path = |name: &str| edge.scene.scratch.path().join(name);
    let shown = |name: &str| path(name).display().to_string();
    expect(&edge.request_to(Place::CutOff(49), &[]), 2, "--out <FILE>");
    edge.request_to(Place::CutOff(49), &["--qr", &shown("void")]).succeeded();
    expect(&edge.request_to(Place::CutOff(49), &["--qr", &shown("void")]), 3, "is not empty");
    let both = ["--qr", &shown("request"), "--out", &shown("request.json")];
    edge.request_to(Place::CutOff(50), &both).succeeded();
    let lines = scanned(&path("request"));
    assert!((3..=6).contains(&lines.len()), "codes are few: {}", lines.len());
    let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
    let private = [mode("request"), mode(&format!("request/1-of-{}.png", lines.len())), mode("request.json")];
    assert_eq!(private, [0o700, 0o600, 0o600], "a licence is in it");

    let desk = |lines: &[String]| {
        fs::write(path("lines.txt"), lines.join("\n")).unwrap();
        let command = ["lease", "renew", "--request", "-", "--qr", &shown("answer")];
        run(edge.scene.vendor.command(command).stdin(File::open(path("lines.txt")).unwrap()))
    };
    expect(&desk(&lines[1..]), 3, &format!("part 1 of {} is missing", lines.len()));
    assert!(!path("answer").exists(), "a folder without codes stayed");
    expect(&desk(&[&scanned(&path("void"))[..1], &lines[1..]].concat()), 3, "line 2 is of another file");
    // The share's first letter: the last one may hold bits that have to be zero.
    let (head, share) = lines[1].rsplit_once(' ').unwrap();
    let changed = format!("{head} {}{}", if share.starts_with('A') { 'E' } else { 'A' }, &share[1..]);
    expect(&desk(&[lines[0].clone(), changed]), 4, "line 2, part 2 of");
    expect(&desk(&[lines[0].clone(), "SEALIFT2".to_owned()]), 3, "line 2 is not of the form");
    let noise = "0108900251130063".to_owned();
    let mixed: Vec<String> = [&noise].into_iter().chain(lines.iter().rev()).chain(&lines[..1]).cloned().collect();
    desk(&mixed).succeeded();
    expect(&edge.answer(&path("request.json"), "answer.json").0, 5, "this request was answered already");

    let answer = scanned(&path("answer"));
    let accept = |lines: &[String]| {
        fs::write(path("lines.txt"), lines.join("\r\n")).unwrap();
        edge.accept(Place::CutOff(51), &path("lines.txt"), &edge.kept)
    };
    expect(&accept(&answer[1..]), 3, "missing");
    expect(&accept(&lines), 3, "line 1 is of a request for a renewal, where an answer");
    accept(&answer).succeeded();
    expect(&edge.start(Place::CutOff(121)), RAN, "starting from the sealed state");
}

/// The certificates are those of the simulated platform, named as AMD's would be.
#[tokio::test]
async fn certificates_and_policies_go_in_one_file_to_a_service_without_internet() {
    let scene = Scene::set().await;
    let path = |name: &str| scene.scratch.path().join(name);
    let command = |args: &[&str], files: &[&Path]| run(scene.vendor.command(args).args(files));
    let bundle = path("bundle.json");
    expect(&command(&["collateral", "bundle", "--out"], &[&bundle]), 3, "neither certificates nor revocation lists");

    let platform = scene.vendor.home().join("simulated-platform");
    let text = fs::read_to_string(platform.join("platform.json")).unwrap();
    let chip = serde_json::from_str::<Value>(&text).unwrap()["chip_id"].as_str().unwrap().to_owned();
    let kept = scene.vendor.home().join("service/endorsements/Genoa");
    let certificate = format!("{chip}/0a000000000017ff.der");
    let other = format!("{}/0a000000000017ff.der", "ab".repeat(64));
    for name in [&certificate, &other] {
        fs::create_dir_all(kept.join(name).parent().unwrap()).unwrap();
        fs::copy(platform.join("vcek.der"), kept.join(name)).unwrap();
    }
    fs::write(kept.join("notes.txt"), b"nothing of the kind").unwrap();
    let unknown = "cd".repeat(64);
    let said = command(&["collateral", "bundle", "--chip", &unknown, "--out"], &[&bundle]);
    expect(&said, 3, "has no certificate of the chip");
    expect(&command(&["collateral", "bundle", "--chip", "cd", "--out"], &[&bundle]), 2, "is no chip id");
    let args = ["--output", "json", "collateral", "bundle", "--chip", &chip, "--product", PRODUCT, "--out"];
    let made: Value = serde_json::from_str(&command(&args, &[&bundle]).succeeded().stdout).unwrap();
    assert_eq!((made["files"].as_u64(), made["policies"].as_u64()), (Some(1), Some(1)));
    expect(&command(&args, &[&bundle]), 3, "exists already");

    let site = path("site");
    let import = |file: &Path| command(&["collateral", "import", "--directory"], &[&site, file]);
    import(&bundle).succeeded();
    let taken = fs::read(site.join("Genoa").join(&certificate)).unwrap();
    assert_eq!(taken, fs::read(platform.join("vcek.der")).unwrap());
    assert!(!site.join("Genoa").join(&other).exists(), "another chip's");

    let changed = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut document: Value = serde_json::from_slice(&fs::read(&bundle).unwrap()).unwrap();
        change(&mut document);
        let file = path(name);
        fs::write(&file, document.to_string()).unwrap();
        file
    };
    let outside = changed("outside.json", &|bundle| bundle["files"][0]["path"] = "../../crl.der".into());
    expect(&import(&outside), 3, "which is no certificate and no list");
    let damaged = changed("damaged.json", &|bundle| bundle["files"][0]["content"] = "AAAA".into());
    expect(&import(&damaged), 4, "is not what its digest says");
    // What is no list of AMD's would leave the service with none.
    let list = changed("list.json", &|bundle| {
        bundle["files"][0] = json!({
            "path": "Genoa/crl.der", "content": "YSBsaXN0",
            "sha256": "34d4e6513a0aa3774b2a0c0f1b902ed838e423b6c999d28b6b936a2baded703a",
        });
    });
    fs::write(site.join("Genoa/crl.der"), b"the list").unwrap();
    expect(&import(&list), 4, "`Genoa/crl.der` of the bundle cannot be used");
    assert_eq!(fs::read(site.join("Genoa/crl.der")).unwrap(), b"the list");
    let policy = changed("policy.json", &|bundle| bundle["policies"][0]["source"] = "package other".into());
    expect(&import(&policy), 4, "the policy of recipe is not what its digest says");
    expect(&import(Path::new(&scene.license)), 3, "is no bundle of collateral");
    let format = changed("format.json", &|bundle| bundle["format"] = "sealift-collateral-bundle/9".into());
    expect(&import(&format), 3, "only `sealift-collateral-bundle/1` is known");

    let digest = made["sha256"].as_str().unwrap();
    expect(&command(&["collateral", "import", "--set-policies"], &[&bundle]), 2, "--sha256");
    let set = ["collateral", "import", "--set-policies", "--sha256", digest];
    expect(&command(&set, &[&outside]), 4, "is not the bundle that was said");
    let shown = |args: &[&str]| scene.vendor.sealift(args).succeeded().stdout;
    command(&set, &[&bundle]).succeeded();
    assert!(shown(&["policy", "show", "--product", PRODUCT]).contains("package sealift.release"));
}
