//! Whole releases with the master key in a token (`SoftHSM`) and in a Transit engine (a real `OpenBao`), one after the other, and
//! what is said when it cannot be had.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use end_to_end::openbao::OpenBao;
use end_to_end::peer::{Said, run};
use end_to_end::scene::{PRODUCT, Scene};
use end_to_end::softhsm::{PIN, Token};
use end_to_end::vendor::Vendor;
use serde_json::Value;

const IN_TOKEN: &str = "pkcs11:token=shop;object=master";
const IN_ENGINE: &str = "openbao://transit/sealift";
/// The image's workload ends with this code.
const RAN: i32 = 7;

fn tools() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR"))
}

fn token(folder: &Path) -> Token {
    let token = Token::make(&folder.join("token"));
    token.make_key("master", "01", &["--sensitive"]);
    token
}

fn status(vendor: &Vendor) -> Value {
    serde_json::from_str(&vendor.sealift(["--output", "json", "key", "status"]).succeeded().stdout).unwrap()
}

fn rotate(vendor: &Vendor, to: &[&str]) -> Value {
    let args = [&["--output", "json", "key", "rotate", "--wait"], to].concat();
    serde_json::from_str(&vendor.sealift(args).succeeded().stdout).unwrap()
}

/// The first status that is so.
fn until(vendor: &Vendor, is_so: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + Duration::from_mins(1);
    loop {
        let status = status(vendor);
        if is_so(&status) {
            return status;
        }
        assert!(Instant::now() < end, "{status}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// `init` of a new home under this master key, with these variables changed.
fn init(folder: &Path, master_key: &str, environment: &[(String, String)], changed: &[(&str, &str)]) -> Said {
    let mut command = std::process::Command::new(end_to_end::peer::program("sealift"));
    command.arg("init").arg(folder.join("refused")).args(["--master-key", master_key]);
    command.envs(environment.iter().map(|(name, value)| (name, value))).envs(changed.iter().copied());
    let said = run(&mut command);
    assert!(!folder.join("refused").exists(), "a home that is of no use was left behind");
    said
}

#[tokio::test]
async fn a_release_under_a_key_that_does_not_leave_its_token() {
    let folder = tempfile::tempdir().unwrap();
    let held = token(folder.path());
    assert!(held.keys().succeeded().stdout.contains("never extractable"));
    assert_ne!(held.read_key("master").code, 0, "the token gives the key away");
    let mut scene = Scene::set_under(IN_TOKEN, held.environment()).await;
    assert_eq!(scene.run().code, RAN);
    assert!(!scene.vendor.home().join("service/master.key").exists());
    scene.vendor.stop_service();
    scene.vendor.serve();
    assert_eq!(scene.run().code, RAN);
    let listed = scene.vendor.sealift(["key", "list", "--product", PRODUCT]).succeeded().stdout;
    assert!(listed.contains(IN_TOKEN), "{listed}");
    // Neither PIN nor module is in the settings or the database: they are the machine's.
    let settings = fs::read_to_string(scene.vendor.home().join("sealift.toml")).unwrap();
    assert!(settings.contains(IN_TOKEN) && !settings.contains(PIN), "{settings}");

    // Another token of the same name, with another key of the same name.
    let other = token(&folder.path().join("other"));
    scene.vendor.stop_service();
    scene.vendor.add_environment(other.environment());
    scene.vendor.sealift(["serve", "--offline"]).failed(4, "sealed under another master key, or damaged");
}

#[tokio::test]
async fn a_release_under_a_transit_key_and_none_while_its_server_is_away_or_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let mut bao = OpenBao::start(tools(), &folder.path().join("bao"));
    bao.make_key("sealift", &[]);
    let allowed = bao.token();
    let scene = Scene::set_under(IN_ENGINE, bao.environment(&allowed)).await;
    assert_eq!(scene.run().code, RAN);
    bao.stop();
    let said = scene.run();
    assert_eq!(said.code, 126, "{}", said.stderr);
    assert!(said.stderr.contains("the store of the service's master key does not answer"), "{}", said.stderr);
    bao.start_again();
    assert_eq!(scene.run().code, RAN);
    // Whoever takes the service's token away ends releases.
    bao.revoke(&allowed);
    let said = scene.run();
    assert_eq!(said.code, 126, "{}", said.stderr);
    assert!(said.stderr.contains("the store of the service's master key refuses the service"), "{}", said.stderr);
}

#[tokio::test]
async fn a_transit_token_that_may_be_renewed_is_while_the_service_runs() {
    let folder = tempfile::tempdir().unwrap();
    let bao = OpenBao::start(tools(), &folder.path().join("bao"));
    bao.make_key("sealift", &[]);
    let scene = Scene::set_under(IN_ENGINE, bao.environment(&bao.token_for("20s"))).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(scene.run().code, RAN);
}

#[tokio::test]
async fn one_master_key_after_the_other_while_the_service_runs() {
    let folder = tempfile::tempdir().unwrap();
    let token = token(folder.path());
    let bao = OpenBao::start(tools(), &folder.path().join("bao"));
    bao.make_key("sealift", &[]);
    let scene =
        Scene::set_under("file:master.key", [token.environment(), bao.environment(&bao.token())].concat()).await;
    let long = folder.path().join("long");
    fs::write(&long, vec![7; 100_000]).unwrap();
    let put = ["secret", "put", "--product", PRODUCT, "config/long", &long.display().to_string()];
    scene.vendor.sealift(put).succeeded();
    let in_home = |name: &str| scene.vendor.home().join("service").join(name).exists();
    for (to, name) in [
        (&[][..], "file:master-2.key"),
        (&["--to", IN_TOKEN], IN_TOKEN),
        (&["--to", IN_ENGINE], IN_ENGINE),
        (&[], IN_ENGINE),
    ] {
        let status = rotate(&scene.vendor, to);
        assert_eq!((&status["master_keys"][0]["name"], &status["rotation"]), (&name.into(), &Value::Null), "{status}");
        let others = status["master_keys"].as_array().unwrap().iter().skip(1);
        assert!(others.clone().all(|key| key["sealed"] == 0 && key["retired_at"].is_string()), "{status}");
        assert_eq!(scene.run().code, RAN);
    }
    assert!(!in_home("master.key") && !in_home("master-2.key"), "files of retired master keys are still in place");
    let said = scene.vendor.sealift(["key", "status"]).succeeded();
    assert!(
        said.stderr.contains("nothing is under `file:master.key` (`") && said.stderr.contains("destroy it"),
        "{}",
        said.stderr
    );
    let audit = scene.vendor.sealift(["audit", "list"]).succeeded().stdout;
    assert_eq!(audit.matches("master_key_changed").count(), 4, "{audit}");
    assert_eq!(audit.matches("master_key_retired").count(), 4, "{audit}");

    // A new version of the same Transit key: once all is under it, the former one is not needed.
    let forget = ["write", "transit/keys/sealift/config", "min_decryption_version=2"];
    bao.bao(&["write", "-force", "transit/keys/sealift/rotate"]).succeeded();
    rotate(&scene.vendor, &[]);
    bao.bao(&forget).succeeded();
    assert_eq!(scene.run().code, RAN);
    assert_eq!(status(&scene.vendor)["master_keys"][0]["name"], IN_ENGINE);
}

#[tokio::test]
async fn a_rotation_waits_for_a_store_that_is_away_and_goes_on_after_the_service_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let token = token(folder.path());
    let mut bao = OpenBao::start(tools(), &folder.path().join("bao"));
    bao.make_key("sealift", &[]);
    let environment = [token.environment(), bao.environment(&bao.token())].concat();
    let mut scene = Scene::set_under(IN_ENGINE, environment).await;
    bao.stop();
    scene.vendor.sealift(["key", "rotate", "--to", IN_TOKEN]).succeeded();
    let waits = until(&scene.vendor, |status| status["rotation"]["trouble"].is_string());
    assert!(waits["rotation"]["trouble"].as_str().unwrap().contains("does not answer"), "{waits}");
    // The image's key, and the working key that came with the master key.
    assert_eq!(waits["rotation"]["left"], 2, "{waits}");
    let secret = folder.path().join("secret");
    fs::write(&secret, "under the new one").unwrap();
    let put = ["secret", "put", "--product", PRODUCT, "config/new", &secret.display().to_string()];
    scene.vendor.sealift(put).succeeded();
    assert_eq!(status(&scene.vendor)["rotation"]["done"], 2);
    scene.vendor.sealift(["key", "rotate", "--to", "file:master.key"]).failed(3, "");

    scene.vendor.stop_service();
    bao.start_again();
    scene.vendor.serve();
    let done = until(&scene.vendor, |status| status["rotation"].is_null());
    assert_eq!(
        (&done["master_keys"][0]["sealed"], &done["master_keys"][1]["sealed"]),
        (&4.into(), &0.into()),
        "{done}"
    );
    // The former store is not needed any more.
    bao.stop();
    assert_eq!(scene.run().code, RAN);
    scene.vendor.stop_service();
    scene.vendor.serve();
    assert_eq!(scene.run().code, RAN);
}

#[tokio::test]
async fn a_master_key_that_cannot_be_used_is_said_so_with_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let token = token(folder.path());
    token.make_key("loose", "02", &["--extractable"]);
    let mut bao = OpenBao::start(tools(), &folder.path().join("bao"));
    bao.make_key("sealift", &[]);
    bao.make_key("rsa", &["type=rsa-2048"]);
    bao.make_key("loose", &["exportable=true"]);
    bao.make_key("copied", &["allow_plaintext_backup=true"]);
    let allowed = bao.token();
    let environment = [token.environment(), bao.environment(&allowed)].concat();
    let path = folder.path();
    let refused = |key: &str, changed: &[(&str, &str)], code: i32, words: &str| {
        init(path, key, &environment, changed).failed(code, words);
    };
    refused(IN_TOKEN, &[("SEALIFT_PKCS11_PIN", "0000")], 5, "the PIN is not the token's user's");
    refused("pkcs11:token=shop;object=other", &[], 3, "its token has no such AES key");
    refused("pkcs11:token=other;object=master", &[], 3, "no such token is in any slot");
    refused("pkcs11:token=shop;object=loose", &[], 3, "it may leave its token");
    refused("pkcs11:token=shop", &[], 2, "names a key by");
    refused(IN_TOKEN, &[("SEALIFT_PKCS11_MODULE", "")], 3, "nor SEALIFT_PKCS11_MODULE is set");
    refused(IN_TOKEN, &[("SEALIFT_PKCS11_MODULE", "/nonexistent.so")], 3, "cannot be reached from here");
    refused(IN_ENGINE, &[("BAO_TOKEN", "nobody")], 5, "permission denied");
    refused("openbao://transit/other", &[], 3, "404");
    refused("openbao://transit/rsa", &[], 3, "takes no associated data");
    refused("openbao://transit/loose", &[], 3, "may leave the engine (`exportable`");
    refused("openbao://transit/copied", &[], 3, "may leave the engine (`allow_plaintext_backup`");
    refused(IN_ENGINE, &[("BAO_ADDR", "http://bao.example:8200")], 3, "it is not https");
    refused("vault://transit/sealift", &[("VAULT_ADDR", "")], 3, "nor VAULT_ADDR is set");
    refused("env://NOBODY_SET_THIS", &[], 3, "is not there");
    bao.stop();
    refused(IN_ENGINE, &[], 6, "does not answer");

    // `serve` says the same.
    bao.start_again();
    let mut vendor = Vendor::start_under(IN_ENGINE, environment, path, &[PRODUCT]);
    vendor.stop_service();
    vendor.add_environment(vec![("BAO_TOKEN".to_owned(), "nobody".to_owned())]);
    vendor.sealift(["serve", "--offline"]).failed(5, "permission denied");
    bao.stop();
    vendor.sealift(["serve", "--offline"]).failed(6, "does not answer");
}
