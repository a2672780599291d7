//! Bundles run by the real runc and crun and by the embedded launcher: the same output, codes and signals, as root and as
//! an ordinary user, and nothing left behind.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod secrets;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use oci_spec::image::ImageConfiguration;
use runtime_shim::bundle::{self, BundleOptions, Network};
use runtime_shim::launcher;
use runtime_shim::runtime::{self, Running, RuntimeChoice, RuntimeError};
use rustix::process::Signal;
use tempfile::TempDir;

/// The embedded runtime runs this very program again, whose main is the test harness's: its stages are taken out before.
#[expect(
    unsafe_code,
    reason = "a section's name cannot be checked by the compiler; this one holds what runs before main"
)]
#[used]
#[unsafe(link_section = ".init_array")]
static INTERCEPT: extern "C" fn() = {
    extern "C" fn intercept() {
        launcher::intercept();
    }
    intercept
};

const EVERY: [RuntimeChoice; 3] = [RuntimeChoice::Runc, RuntimeChoice::Crun, RuntimeChoice::Embedded];
const FOR_ANYONE: [RuntimeChoice; 2] = [RuntimeChoice::Runc, RuntimeChoice::Embedded];
/// How often a state that must come is looked for; far beyond what it takes.
const PATIENCE: u32 = 600;

struct Workload {
    directory: TempDir,
    marker: String,
}

impl Workload {
    /// A bundle whose workload is a script; `$0` of it is a word that no other process has.
    fn new(image: &str, script: &str, change: impl FnOnce(&mut BundleOptions<'_>)) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let marker = format!("sealift-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let command = ["/bin/sh", "-c", script, &marker].map(ToOwned::to_owned);
        let directory = tempfile::tempdir().unwrap();
        let this = Self { directory, marker };
        root_filesystem(&this.path().join("rootfs"));
        this.write(image, &command, change);
        this
    }

    fn write(&self, image: &str, command: &[String], change: impl FnOnce(&mut BundleOptions<'_>)) {
        let config = ImageConfiguration::from_reader(image.as_bytes()).unwrap();
        let mut options = BundleOptions {
            config: &config,
            command,
            read_only_root: false,
            network: Network::None,
            secrets: &[],
            rootless: !rustix::process::geteuid().is_root(),
        };
        change(&mut options);
        bundle::write(self.path(), &options).unwrap();
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn start(&self, choice: RuntimeChoice) -> Running {
        runtime::start(choice, self.path(), &self.marker, &self.path().join("state")).await.unwrap()
    }

    async fn code(&self, choice: RuntimeChoice) -> u8 {
        let code = self.start(choice).await.wait().await.unwrap();
        self.assert_nothing_left(choice).await;
        code
    }

    /// What the workload wrote to `/out`.
    fn output(&self) -> String {
        fs::read_to_string(self.path().join("rootfs/out")).unwrap()
    }

    /// Until the workload has made `/ready`.
    async fn ready(&self) {
        let path = self.path().join("rootfs/ready");
        eventually("the workload does not run", || path.exists()).await;
    }

    async fn assert_nothing_left(&self, choice: RuntimeChoice) {
        eventually(&format!("{choice:?}: a process is left"), || !is_running(&self.marker)).await;
        let state = self.path().join("state");
        let left: Vec<_> = fs::read_dir(&state).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        assert!(left.iter().all(|path| !path.ends_with(&self.marker)), "{choice:?}: {left:?}");
    }
}

fn root_filesystem(root: &Path) {
    for directory in ["bin", "etc", "proc", "tmp"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = fs::read("/bin/busybox").expect("install Debian's package `busybox-static`");
    fs::write(root.join("bin/busybox"), busybox).unwrap();
    fs::set_permissions(root.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o777)).unwrap();
    for applet in ["sh", "sleep", "cat", "grep", "id", "ls", "touch", "pwd", "hostname", "wc", "setsid"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/home/app:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nusers:x:100:\nvideo:x:44:app\n").unwrap();
}

fn is_running(marker: &str) -> bool {
    let ours = std::process::id().to_string();
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        entry.file_name() != *ours && words.split(|byte| *byte == 0).any(|word| word == marker.as_bytes())
    })
}

async fn eventually(otherwise: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..PATIENCE {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{otherwise}");
}

fn image(config: &str) -> String {
    format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[]}},"config":{config}}}"#)
}

/// Goes on when this process is an ordinary user; otherwise runs the test `name` again as one, with a /tmp as many systems
/// have it (`nosuid,nodev`), and returns false.
fn is_ordinary_user(name: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    let place = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program: PathBuf = place.path().join("test");
    fs::copy("/proc/self/exe", &program).unwrap();
    let script = "mount -t tmpfs -o nosuid,nodev,mode=1777 none /tmp && \
                  exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$0\" --exact \"$1\" --nocapture";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script]).arg(&program).arg(name).current_dir("/").env_remove("XDG_RUNTIME_DIR");
    assert_passed(&mut command);
    false
}

/// Runs one test of this program again. A name that no test has succeeds, too, with none.
fn assert_passed(again: &mut Command) {
    let ran = again.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains(" 1 passed"), "{said}{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test]
async fn exit_codes_pass_under_every_runtime() {
    for choice in EVERY {
        for code in [0, 7, 200] {
            assert_eq!(
                Workload::new(&image("{}"), &format!("exit {code}"), |_| {}).code(choice).await,
                code,
                "{choice:?}"
            );
        }
    }
}

const LOOK: &str = "exec >/out; id -u; id -g; id -G; pwd; hostname; echo $GREETING $HOME; ulimit -c; \
                    ls /proc/self/fd | wc -l; grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/self/status; \
                    grep ' /sys' /proc/self/mounts | grep -v ' ro,'; grep -c : /proc/net/dev; exit 0";

#[tokio::test]
async fn user_directory_environment_and_limits_are_the_same_under_every_runtime() {
    let config = r#"{"User":"app","WorkingDir":"/srv/made/for/it","Env":["GREETING=hello there"]}"#;
    let mut said = Vec::new();
    for choice in EVERY {
        let workload = Workload::new(&image(config), LOOK, |_| {});
        assert_eq!(workload.code(choice).await, 0, "{choice:?}");
        said.push(workload.output());
    }
    assert!(
        said[0].starts_with("1000\n100\n100 44\n/srv/made/for/it\nsealift\nhello there /home/app\n0\n"),
        "{}",
        said[0]
    );
    assert_eq!(said[0], said[1], "runc and crun");
    assert_eq!(said[0], said[2], "runc and embedded");
}

#[tokio::test]
async fn root_has_the_same_under_every_runtime() {
    let mut said = Vec::new();
    for choice in EVERY {
        let workload = Workload::new(&image("{}"), LOOK, |_| {});
        assert_eq!(workload.code(choice).await, 0, "{choice:?}");
        said.push(workload.output());
    }
    assert_eq!(said[0], said[1], "runc and crun");
    assert_eq!(said[0], said[2], "runc and embedded");
}

#[tokio::test]
async fn a_read_only_root_cannot_be_written() {
    for choice in EVERY {
        let workload = Workload::new(&image("{}"), "touch /out || exit 9", |options| options.read_only_root = true);
        assert_eq!(workload.code(choice).await, 9, "{choice:?}");
    }
}

#[tokio::test]
async fn signals_reach_the_workload() {
    for choice in EVERY {
        let script = "trap 'exit 43' TERM; touch /ready; while :; do sleep 0.1; done";
        let workload = Workload::new(&image("{}"), script, |_| {});
        let mut running = workload.start(choice).await;
        workload.ready().await;
        running.signal(Signal::TERM).await.unwrap();
        assert_eq!(running.wait().await.unwrap(), 43, "{choice:?}");
        workload.assert_nothing_left(choice).await;
    }
}

#[tokio::test]
async fn a_signal_that_comes_before_the_embedded_workload_is_not_lost() {
    let workload = Workload::new(&image("{}"), "while :; do sleep 0.1; done", |_| {});
    let mut running = workload.start(RuntimeChoice::Embedded).await;
    running.signal(Signal::KILL).await.unwrap();
    assert_eq!(running.wait().await.unwrap(), 137);
    workload.assert_nothing_left(RuntimeChoice::Embedded).await;
}

#[tokio::test]
async fn sigkill_reaches_the_workload_and_not_its_runtime() {
    for choice in EVERY {
        let workload = Workload::new(&image("{}"), "touch /ready; while :; do sleep 0.1; done", |_| {});
        let mut running = workload.start(choice).await;
        workload.ready().await;
        running.signal(Signal::KILL).await.unwrap();
        assert_eq!(running.wait().await.unwrap(), 137, "{choice:?}");
        workload.assert_nothing_left(choice).await;
    }
}

const TREE: &str = "trap '' TERM; setsid sh -c 'while :; do sleep 0.1; done' \"$0\" & touch /ready; wait";

#[tokio::test]
async fn kill_ends_the_whole_tree() {
    for choice in EVERY {
        let workload = Workload::new(&image("{}"), TREE, |_| {});
        let mut running = workload.start(choice).await;
        workload.ready().await;
        // Cancelling a wait loses nothing.
        assert!(tokio::time::timeout(Duration::from_millis(1), running.wait()).await.is_err());
        running.kill().await.unwrap();
        workload.assert_nothing_left(choice).await;
    }
}

#[tokio::test]
async fn kill_at_once_after_start_ends_it_too() {
    for choice in EVERY {
        for _ in 0..5 {
            let workload = Workload::new(&image("{}"), "while :; do sleep 0.1; done", |_| {});
            let mut running = workload.start(choice).await;
            let killed = tokio::time::timeout(Duration::from_secs(30), running.kill()).await;
            killed.unwrap_or_else(|_| panic!("{choice:?}: still alive")).unwrap();
            workload.assert_nothing_left(choice).await;
        }
    }
}

#[tokio::test]
async fn the_workload_does_not_outlive_the_embedded_runtime_whoever_it_runs_as() {
    for user in ["root", "app"] {
        let workload = Workload::new(&image(&format!(r#"{{"User":"{user}"}}"#)), TREE, |_| {});
        let mut stage = Command::new("/proc/self/exe").arg(launcher::STAGE_ONE).arg(workload.path()).spawn().unwrap();
        workload.ready().await;
        stage.kill().unwrap();
        stage.wait().unwrap();
        workload.assert_nothing_left(RuntimeChoice::Embedded).await;
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_that_names_it() {
    for choice in EVERY {
        let workload = Workload::new(&image("{}"), "", |_| {});
        workload.write(&image("{}"), &["/bin/absent".to_owned()], |_| {});
        let ended = workload.start(choice).await.wait().await;
        match (choice, ended) {
            (RuntimeChoice::Embedded, Err(RuntimeError::Launch(cause))) => {
                assert!(cause.contains("/bin/absent"), "{cause}");
            }
            (RuntimeChoice::Embedded, other) => panic!("{other:?}"),
            (_, code) => assert!(matches!(code, Ok(1..)), "{choice:?}: {code:?}"),
        }
        workload.assert_nothing_left(choice).await;
    }
}

#[tokio::test]
async fn an_ordinary_user_runs_bundles_under_runc_and_the_embedded_runtime() {
    if !is_ordinary_user("an_ordinary_user_runs_bundles_under_runc_and_the_embedded_runtime") {
        return;
    }
    let mut said = Vec::new();
    for choice in FOR_ANYONE {
        let script = "id -u >/out; pwd >>/out; echo $HOME >>/out; grep NoNewPrivs /proc/self/status >>/out; exit 7";
        let workload = Workload::new(&image(r#"{"WorkingDir":"/srv/it"}"#), script, |_| {});
        assert_eq!(workload.code(choice).await, 7, "{choice:?}");
        said.push(workload.output());
        let read_only = Workload::new(&image("{}"), "touch /out || exit 9", |options| options.read_only_root = true);
        assert_eq!(read_only.code(choice).await, 9, "{choice:?}");
        let tree = Workload::new(&image("{}"), TREE, |_| {});
        let mut running = tree.start(choice).await;
        tree.ready().await;
        running.kill().await.unwrap();
        tree.assert_nothing_left(choice).await;
    }
    assert_eq!(said[0], said[1]);
}

#[tokio::test]
async fn the_choice_left_open_falls_on_what_works_here() {
    let workload = Workload::new(&image("{}"), "exit 7", |_| {});
    let mut running = workload.start(RuntimeChoice::Auto).await;
    assert_eq!((running.name(), running.wait().await.unwrap()), ("runc", 7));
    workload.assert_nothing_left(RuntimeChoice::Auto).await;
    let left = fs::read_dir(workload.path().join("state")).unwrap().count();
    assert_eq!(left, 0, "the trial left something");
}

#[tokio::test]
async fn runtimes_that_are_installed_and_do_not_work_are_passed_over() {
    if std::env::var_os(BROKEN).is_some() {
        let workload = Workload::new(&image("{}"), "exit 7", |_| {});
        let mut running = workload.start(RuntimeChoice::Auto).await;
        assert_eq!((running.name(), running.wait().await.unwrap()), ("embedded", 7));
        return;
    }
    let broken = tempfile::tempdir().unwrap();
    for name in ["runc", "crun"] {
        let program = broken.path().join(name);
        fs::write(&program, "#!/bin/sh\necho 'cgroups in hybrid mode not supported' >&2\nexit 1\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let name = "runtimes_that_are_installed_and_do_not_work_are_passed_over";
    let path = format!("{}:{}", broken.path().display(), std::env::var("PATH").unwrap());
    let mut again = Command::new("/proc/self/exe");
    again.args(["--exact", name]).env(BROKEN, "1").env("PATH", path);
    assert_passed(&mut again);
}

/// Says that the runtimes on PATH are broken ones.
const BROKEN: &str = "SEALIFT_TEST_RUNTIMES_ARE_BROKEN";

#[test]
fn the_config_of_a_full_image_becomes_this_bundle() {
    let config = r#"{"User":"app","WorkingDir":"/srv","Env":["PATH=/bin","GREETING=hello"],"Cmd":["unused"],
                     "Labels":{"org.example.kind":"demo"},"StopSignal":"SIGINT"}"#;
    let workload = Workload::new(&image(config), "exit 0", |_| {});
    let command = ["serve", "--quick"].map(ToOwned::to_owned);
    workload.write(&image(config), &command, |options| {
        options.read_only_root = true;
        options.rootless = false;
    });
    let written: serde_json::Value =
        serde_json::from_slice(&fs::read(workload.path().join("config.json")).unwrap()).unwrap();
    // Whether members keep their order depends on what else is built.
    insta::with_settings!({sort_maps => true}, {
        insta::assert_json_snapshot!("bundle", written);
    });
}
