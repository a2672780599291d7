//! What is measured: a service in a process of its own with one product, one image key and one licence of many seats.

use std::process::Command;

use end_to_end::device::launch;
use end_to_end::forge::base64;
use end_to_end::peer::run;
use end_to_end::process::{Memory, cpu_seconds, memory};
use end_to_end::vendor::Vendor;
use jose::signing::SigningKey;
use launch_evidence::simulated::{LaunchOptions, SimulatedGuest};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::guest::{Ask, Guest};
use crate::options::Options;

pub(crate) const PRODUCT: &str = "bench";
pub(crate) const KEY_ID: &str = "key";
pub(crate) const MANIFEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";
const KEK: [u8; 32] = *b"the key of a measurement, no key";

/// The service and what its clients need.
pub(crate) struct Stage {
    pub(crate) url: String,
    pub(crate) service: String,
    pub(crate) license: String,
    pub(crate) signer: String,
    pub(crate) platform: SimulatedGuest,
    vendor: Vendor,
    _scratch: TempDir,
}

impl Stage {
    /// Starts the service.
    pub(crate) async fn set(options: &Options) -> Self {
        let scratch = tempfile::tempdir().expect("scratch");
        let mut vendor = Vendor::prepare(scratch.path());
        // All clients come from one address.
        vendor.add_settings(
            "[service.limits]\nrequests_per_second = 0\nconcurrent_requests = 100000\nconnections = 100000",
        );
        let mut serve = vendor.command(["serve", "--offline", "--allow-simulated"]);
        if let Some(url) = &options.database {
            serve.args(["--database", url]);
        }
        if options.pin {
            let mut pinned = Command::new("taskset");
            pinned.args(["--cpu-list", "0"]).arg(serve.get_program()).args(serve.get_args());
            serve = pinned;
        }
        vendor.serve_by(serve);
        vendor.create_products(&[PRODUCT]);
        let (_, license) = vendor.license(PRODUCT, &["--seats", "4000000000", "--lease", "7d"]);
        let key = std::fs::read_to_string(vendor.home().join("signing.key")).expect("signing key");
        let signer = SigningKey::from_pem(&key).expect("signing key").verifying_key().thumbprint();
        let version = run(&mut vendor.command(["--version"])).succeeded().stdout.trim().to_owned();
        let stage = Self {
            url: vendor.service_url(),
            service: format!("{version}, {}", options.database.as_deref().map_or("SQLite", |_| "--database")),
            license: std::fs::read_to_string(license).expect("licence").trim().to_owned(),
            signer,
            platform: launch(&vendor, scratch.path(), LaunchOptions::default()),
            vendor,
            _scratch: scratch,
        };
        stage.register_key().await;
        eprintln!("the service is process {}", stage.pid());
        stage
    }

    async fn register_key(&self) {
        let body = json!({
            "id": KEY_ID, "kek": base64(&KEK), "image": "bench",
            "manifests": [{"digest": MANIFEST, "platform": "linux/amd64"}],
        });
        let url = format!("{}/api/v1/products/{PRODUCT}/keys", self.url);
        let request = self.client().post(url).bearer_auth(self.vendor.admin_token()).json(&body);
        let answer = request.send().await.expect("service");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }

    /// A token that may read, and change nothing.
    pub(crate) async fn auditor_token(&self) -> String {
        let body = json!({"name": "bench-auditor", "role": "auditor"});
        let request = self.client().post(format!("{}/api/v1/tokens", self.url)).bearer_auth(self.vendor.admin_token());
        let answer = request.json(&body).send().await.expect("service");
        text(&answer.json().await.expect("token"), "token")
    }

    /// A client with connections of its own.
    pub(crate) fn client(&self) -> reqwest::Client {
        self.vendor.client()
    }

    /// Sees that what is measured is a release: the key arrives.
    pub(crate) async fn check_one_release(&self) {
        let guest = Guest::new();
        let answer = guest.ask(self, &self.client(), Ask::Release).await;
        assert_eq!(guest.open(&answer).as_slice(), KEK);
    }

    fn pid(&self) -> u32 {
        self.vendor.service_pid()
    }

    /// The service's CPU time, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.pid())
    }

    /// The service's memory.
    pub(crate) fn memory(&self) -> Memory {
        memory(self.pid())
    }

    /// How many leases live and how many entries the log has.
    pub(crate) async fn stored(&self) -> (u64, u64) {
        let request = self.client().get(format!("{}/metrics", self.url)).bearer_auth(self.vendor.admin_token());
        let text = request.send().await.expect("service").text().await.expect("metrics");
        let gauge = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse().ok()).expect("gauge")
        };
        (gauge("sealift_leases_live"), gauge("sealift_audit_entries"))
    }
}

/// The text of a JSON member.
pub(crate) fn text(document: &Value, name: &str) -> String {
    document[name].as_str().unwrap_or_else(|| panic!("no `{name}` in {document}")).to_owned()
}
