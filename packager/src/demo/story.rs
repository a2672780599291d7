//! The story: a dozen calm lines, each said only after it was seen to be true.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use serde_json::json;
use tokio::process::Child;

use super::image::{self, SECRET};
use super::process::{Demo, Said};

const PRODUCT: &str = "recipe";
const OTHER_PRODUCT: &str = "another-product";

/// Tells the demo's story.
pub(crate) struct Story {
    demo: Demo,
    console: Console,
    told: Vec<String>,
}

impl Story {
    pub(crate) fn new(demo: Demo, console: Console) -> Self {
        Self { demo, console, told: Vec::new() }
    }

    /// Runs every step; the first that is not as it should be ends it.
    pub(crate) async fn tell(mut self) -> Result<(), Failure> {
        self.prepare().await?;
        let mut service = self.demo.serve().await?;
        self.line(
            "served",
            "attestation service on loopback, accepting SIMULATED platforms (no TEE on this machine is used)",
        );
        let outcome = self.with_service().await;
        // The service is the demo's own; it goes with it whatever happened.
        stop(&mut service).await;
        outcome?;
        if self.demo.kept {
            self.console.say(format!("kept `{}`", self.demo.directory.display()));
            self.console.say(self.commands());
        }
        let text = "done: what runs was attested, what is stored is ciphertext, and the licence decides".to_owned();
        self.console.result(&json!({"steps": self.told, "simulated": true}), || text);
        Ok(())
    }

    async fn with_service(&mut self) -> Result<(), Failure> {
        self.register().await?;
        let plain_bytes = self.pack().await?;
        self.only_ciphertext(plain_bytes)?;
        let license = self.license(PRODUCT, "license.jwt").await?;
        self.run_attested().await?;
        self.run_tampered().await?;
        self.run_unlicensed().await?;
        self.revoke_while_running(&license).await?;
        self.run_revoked().await
    }

    async fn prepare(&mut self) -> Result<(), Failure> {
        image::build(&self.demo.path("plain")).await?;
        let listen = free_address()?;
        let home = self.demo.path("home");
        self.demo.sealift(&["init", &home.display().to_string(), "--listen", &listen]).await?;
        self.demo.sealift(&["simulate", "platform"]).await?;
        self.line("made", "a small image from files at hand, a vendor home, and a simulated SEV-SNP platform");
        Ok(())
    }

    async fn register(&mut self) -> Result<(), Failure> {
        for product in [PRODUCT, OTHER_PRODUCT] {
            self.demo.sealift(&["product", "create", product]).await?;
        }
        let shim = self.demo.shim.display().to_string();
        let measurement = self.demo.sealift(&["simulate", "launch", "--measure-only", "--initrd", &shim]).await?;
        for product in [PRODUCT, OTHER_PRODUCT] {
            let args = ["reference", "add", "--product", product, "--digest", &measurement, "--label", "demo guest"];
            self.demo.sealift(&args).await?;
        }
        self.line("measured", &format!("firmware, kernel, this shim and its command line: {}…", start(&measurement)));
        Ok(())
    }

    async fn pack(&mut self) -> Result<u64, Failure> {
        let started = Instant::now();
        let (source, destination) = (self.image("plain"), self.image("sealed"));
        let packed =
            self.demo.sealift(&["--output", "json", "pack", &source, &destination, "--product", PRODUCT]).await?;
        let packed: serde_json::Value = serde_json::from_str(&packed)
            .or_fail(ExitCode::Other, || "the answer of `pack` cannot be read".to_owned())?;
        let bytes = packed["sealed_bytes"].as_u64().unwrap_or_default();
        let digest = packed["digest"].as_str().unwrap_or_default().to_owned();
        self.line(
            "packed",
            &format!(
                "{} layers, {} KiB, encrypted, registered and signed in {} ms: {}…",
                packed["sealed_layers"],
                bytes >> 10,
                started.elapsed().as_millis(),
                digest.get(..19).unwrap_or(&digest)
            ),
        );
        Ok(bytes)
    }

    /// What the customer's registry holds: the demo's layout, byte by byte.
    fn only_ciphertext(&mut self, sealed_bytes: u64) -> Result<(), Failure> {
        let mut files = 0;
        let mut bytes = 0;
        for path in blobs(&self.demo.path("sealed"))? {
            let blob = std::fs::read(&path).or_fail(ExitCode::Other, || format!("cannot read `{}`", path.display()))?;
            let readable = blob.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            // A gzip stream would begin so; ciphertext does by chance once in 16 million layers.
            if readable || blob.starts_with(&[0x1f, 0x8b, 0x08]) {
                return Err(Failure::other(format!("`{}` is not ciphertext", path.display())));
            }
            files += 1;
            bytes += blob.len() as u64;
        }
        if bytes < sealed_bytes {
            return Err(Failure::other("the sealed image has fewer bytes than were encrypted"));
        }
        self.line(
            "stored",
            &format!("{files} blobs in the customer's registry: manifests, signatures, and ciphertext only"),
        );
        Ok(())
    }

    async fn license(&self, product: &str, file: &str) -> Result<String, Failure> {
        let file = self.demo.path(file).display().to_string();
        let args = [
            "license",
            "issue",
            "--product",
            product,
            "--customer",
            "customer",
            "--seats",
            "2",
            "--lease",
            "3s",
            "--grace",
            "2s",
            "--file",
            &file,
        ];
        self.demo.sealift(&args).await
    }

    async fn run_attested(&mut self) -> Result<(), Failure> {
        self.line("licensed", "the customer for two seats, leases of three seconds");
        let said = self.launch(&self.demo.shim.clone(), "license.jwt", &[]).await?;
        if said.code() != Some(0) {
            return Err(unexpected("the attested run failed", &said));
        }
        self.line(
            "attested",
            "the simulated launch was verified, a lease granted, the key released to this guest alone",
        );
        self.line("ran", said.stdout.trim());
        Ok(())
    }

    async fn run_tampered(&mut self) -> Result<(), Failure> {
        let tampered = self.demo.path("tampered-shim");
        tamper(&self.demo.shim, &tampered)?;
        let said = self.launch(&tampered, "license.jwt", &[]).await?;
        self.denied("tampered", "one byte of the shim changed", "no reference value", &said)
    }

    async fn run_unlicensed(&mut self) -> Result<(), Failure> {
        self.license(OTHER_PRODUCT, "other-license.jwt").await?;
        let said = self.launch(&self.demo.shim.clone(), "other-license.jwt", &[]).await?;
        self.denied("unlicensed", "a licence for another product", "does not cover", &said)
    }

    async fn revoke_while_running(&mut self, license: &str) -> Result<(), Failure> {
        let args = self.launch_args(&self.demo.shim.clone(), "license.jwt", &["/bin/sh", "/app/main.sh", "serve"]);
        let running = self.demo.start(&args)?;
        self.wait_for_lease().await?;
        self.demo.sealift(&["license", "revoke", license, "--reason", "the demo's licence was returned"]).await?;
        let revoked = Instant::now();
        let output = tokio::time::timeout(Duration::from_mins(1), running.wait_with_output())
            .await
            .or_fail(ExitCode::Other, || "the running workload was not stopped within a minute".to_owned())?
            .or_fail(ExitCode::Other, || "cannot wait for the running workload".to_owned())?;
        let said = Said {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        if said.code() != Some(LEASE_LOST) {
            return Err(unexpected("the running workload did not end with a lost lease", &said));
        }
        self.line(
            "revoked",
            &format!(
                "a running instance lost its lease and was stopped after {:.1} s",
                revoked.elapsed().as_secs_f64()
            ),
        );
        Ok(())
    }

    async fn run_revoked(&mut self) -> Result<(), Failure> {
        let said = self.launch(&self.demo.shim.clone(), "license.jwt", &[]).await?;
        self.denied("second run", "after the revocation", "was revoked", &said)
    }

    fn denied(&mut self, what: &str, how: &str, reason: &str, said: &Said) -> Result<(), Failure> {
        let told = said.line("caused by:").filter(|cause| cause.contains(reason));
        match (said.code(), told) {
            (Some(DENIED), Some(cause)) => {
                let cause = abbreviate(cause);
                self.line(what, &format!("{how}: DENIED, {cause}"));
                Ok(())
            }
            _ => Err(unexpected(&format!("{how}: was not denied as it should be"), said)),
        }
    }

    async fn wait_for_lease(&self) -> Result<(), Failure> {
        for _ in 0..200 {
            let leases = self.demo.sealift(&["--output", "json", "lease", "list"]).await?;
            if leases.contains("\"live\"") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(Failure::other("the background run took no lease"))
    }

    async fn launch(&self, shim: &Path, license: &str, command: &[&str]) -> Result<Said, Failure> {
        self.demo.try_sealift(&self.launch_args(shim, license, command)).await
    }

    fn launch_args(&self, shim: &Path, license: &str, command: &[&str]) -> Vec<std::ffi::OsString> {
        let (sealed, license) = (self.image("sealed"), self.demo.path(license).display().to_string());
        let mut args = vec!["run", "--stop-timeout", "1", &sealed, "--license", &license];
        if !command.is_empty() {
            args.push("--");
            args.extend(command);
        }
        Demo::launch(shim, &args)
    }

    fn image(&self, name: &str) -> String {
        format!("oci:{}:demo", self.demo.path(name).display())
    }

    fn line(&mut self, what: &str, how: &str) {
        let line = format!("{what:<11} {how}");
        self.console.say(&line);
        self.told.push(line);
    }

    fn commands(&self) -> String {
        let home = self.demo.path("home").display().to_string();
        let shim = self.demo.shim.display();
        let (plain, sealed) = (self.image("plain"), self.image("sealed"));
        let license = self.demo.path("new-license.jwt").display().to_string();
        format!(
            "repeat each step by hand:\n\
             \x20 export SEALIFT_HOME={home}\n\
             \x20 sealift serve --allow-simulated &\n\
             \x20 sealift simulate launch --measure-only --initrd {shim}\n\
             \x20 sealift pack {plain} {sealed} --product {PRODUCT}\n\
             \x20 sealift license issue --product {PRODUCT} --customer customer --file {license}\n\
             \x20 sealift simulate launch --initrd {shim} -- run {sealed} --license {license}\n\
             \x20 sealift license list\n\
             \x20 sealift license revoke ID --reason TEXT\n\
             \x20 sealift audit list"
        )
    }
}

/// 120 + the codes of the command line.
const DENIED: i32 = 120 + ExitCode::Denied as i32;
const LEASE_LOST: i32 = 120 + ExitCode::LeaseLost as i32;

async fn stop(service: &mut Child) {
    // Already gone is as good.
    let _ = service.kill().await;
}

fn unexpected(message: &str, said: &Said) -> Failure {
    Failure::other(message)
        .cause(format!("exit code {:?}", said.code()))
        .cause(said.stderr.trim().to_owned())
        .hint("run `sealift-shim doctor` to see what this machine lacks")
}

fn start(measurement: &str) -> &str {
    measurement.get(..16).unwrap_or(measurement)
}

/// Long hexadecimal numbers, cut: the story is for people.
fn abbreviate(text: &str) -> String {
    let short = |word: &str| {
        let digits = word.trim_start_matches("sha256:");
        if digits.len() >= 40 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            format!("{}…", word.get(..word.len() - digits.len() + 12).unwrap_or(word))
        } else {
            word.to_owned()
        }
    };
    text.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

/// An address that nobody listens on, with a port below those that the system gives to outgoing connections: it is still
/// free when the service starts.
fn free_address() -> Result<String, Failure> {
    use std::hash::{BuildHasher as _, RandomState};
    (0..1000)
        .map(|_| format!("127.0.0.1:{}", 10_000 + RandomState::new().hash_one(0) % 20_000))
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .ok_or_else(|| Failure::other("there is no free port on loopback"))
}

fn blobs(layout: &Path) -> Result<Vec<PathBuf>, Failure> {
    let directory = layout.join("blobs/sha256");
    std::fs::read_dir(&directory)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .or_fail(ExitCode::Other, || format!("cannot list `{}`", directory.display()))
}

/// Copies the shim with one byte changed that does not keep it from running: the padding of its ELF header.
fn tamper(shim: &Path, tampered: &Path) -> Result<(), Failure> {
    let cannot = || format!("cannot copy `{}`", shim.display());
    std::fs::copy(shim, tampered).or_fail(ExitCode::Other, cannot)?;
    let mut bytes = std::fs::read(tampered).or_fail(ExitCode::Other, cannot)?;
    if let Some(padding) = bytes.get_mut(15) {
        *padding ^= 1;
    }
    std::fs::write(tampered, bytes).or_fail(ExitCode::Other, cannot)
}
