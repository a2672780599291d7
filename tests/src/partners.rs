//! Three partners who do not trust each other, each with a home and a service of its own, and their image: code that all can
//! read, and a component of each, sealed to its own service before the image is handed on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::peer::{Said, peer, run};
use crate::vendor::Vendor;

/// What each of them calls its product: the same, so that services are told apart by nothing else than where they are.
pub const PRODUCT: &str = "joint";
/// Their names.
pub const NAMES: [&str; 3] = ["a", "b", "c"];

/// What the workload says where all three components are there, in their order.
pub const JOINED: &str = "the secret of a\nthe secret of b\nthe secret of c\n";

/// See the module's text.
#[derive(Debug)]
pub struct Partners {
    /// Their sides, by name.
    pub vendors: Vec<Vendor>,
    /// A licence of each: its id and its file.
    pub licenses: Vec<(String, String)>,
    /// The whole image, signed by nobody: `oci:DIR:v1`.
    pub image: String,
    /// Everything.
    pub scratch: TempDir,
}

impl Partners {
    /// Makes the partners and has them seal an image between them.
    ///
    /// # Panics
    /// When anything fails.
    pub fn meet() -> Self {
        let scratch = tempfile::tempdir().expect("directory");
        let mut vendors: Vec<Vendor> = NAMES.map(|name| prepare(&scratch.path().join(name))).into();
        // One machine of the customer's, which all of them accept.
        let platform = vendors[0].home().join("simulated-platform");
        for vendor in &mut vendors {
            let own = vendor.home().join("simulated-platform");
            if own != platform {
                fs::remove_dir_all(&own).expect("platform");
                run(peer("cp").arg("-r").arg(&platform).arg(&own)).succeeded();
            }
            vendor.serve();
        }
        let mut partners = Self { vendors, licenses: Vec::new(), image: String::new(), scratch };
        for vendor in &partners.vendors {
            partners.make_product(vendor);
        }
        partners.licenses = (0..NAMES.len()).map(|number| partners.license(number, &["--lease", "30s"])).collect();
        partners.make_base("base", JOIN);
        partners.image = partners.seal("base", "v1");
        partners
    }

    fn make_product(&self, vendor: &Vendor) {
        let mut create = vendor.command(["product", "create", PRODUCT]);
        create.args(self.keys().iter().flat_map(|key| ["--signer", key]));
        run(&mut create).succeeded();
        let measurement = vendor.measurement(&vendor.shim());
        vendor.sealift(["reference", "add", "--product", PRODUCT, "--digest", &measurement]).succeeded();
        vendor.sealift(["policy", "set", "--product", PRODUCT, &policy().display().to_string()]).succeeded();
    }

    /// An image with code that everybody can read, by the name `oci:DIR:v1`.
    ///
    /// # Panics
    /// When a peer is absent or fails.
    pub fn make_base(&self, name: &str, code: &str) {
        let root = self.scratch.path().join(format!("root-{name}"));
        for directory in ["bin", "app", "partners"] {
            fs::create_dir_all(root.join(directory)).expect("directory");
        }
        fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox: install Debian's package `busybox-static`");
        for name in ["sh", "cat", "sleep"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).expect("link");
        }
        fs::write(root.join("app/join"), code).expect("script");
        run(peer("chmod").arg("755").arg(root.join("app/join"))).succeeded();
        let (layout, tar) = (self.path(name), self.path(&format!("{name}.tar")));
        run(peer("tar").arg("-C").arg(&root).args(["-cf", &tar, "."])).succeeded();
        let image = format!("{layout}:v1");
        let umoci = |args: &[&str]| run(peer("umoci").args(args)).succeeded();
        umoci(&["init", "--layout", &layout]);
        umoci(&["new", "--image", &image]);
        umoci(&["raw", "add-layer", "--image", &image, &tar]);
        let start = ["--config.entrypoint", "/app/join", "--config.env", "PATH=/bin"];
        umoci(&[&["config", "--image", &image, "--architecture", "amd64", "--os", "linux"], &start[..]].concat());
    }

    /// Has each append its component to what the one before handed on; gives the whole image.
    ///
    /// # Panics
    /// When anything fails.
    pub fn seal(&self, base: &str, tag: &str) -> String {
        let mut image = format!("oci:{}:v1", self.path(base));
        for number in 0..NAMES.len() {
            let next = self.handed_on(number, tag);
            self.append(number, &image, &next, &[]).succeeded();
            image = next;
        }
        image
    }

    /// The image as a partner hands it on.
    pub fn handed_on(&self, number: usize, tag: &str) -> String {
        format!("oci:{}:{tag}", self.path(&format!("from-{}", NAMES[number])))
    }

    /// Has a partner append its component, confined to its own directory, unless `more` says otherwise.
    ///
    /// # Panics
    /// When the component cannot be made.
    pub fn append(&self, number: usize, from: &str, to: &str, more: &[&str]) -> Said {
        let directory = format!("/partners/{}", NAMES[number]);
        let tar = self.component(number);
        let usual: &[&str] = &["--joint", "--confine", &directory];
        let more = if more.is_empty() { usual } else { more };
        self.pack(number, from, to, &[&["--layers", "-1", "--append", &tar], more].concat())
    }

    /// Has a partner pack an image.
    pub fn pack(&self, number: usize, from: &str, to: &str, more: &[&str]) -> Said {
        run(self.vendors[number].command(["pack", from, to, "--product", PRODUCT]).args(more))
    }

    /// A partner's component as a plain tar.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn component(&self, number: usize) -> String {
        let name = NAMES[number];
        let root = self.scratch.path().join(format!("component-{name}"));
        let directory = root.join("partners").join(name);
        fs::create_dir_all(&directory).expect("directory");
        fs::write(directory.join("component"), format!("the secret of {name}\n")).expect("component");
        let tar = self.path(&format!("component-{name}.tar"));
        run(peer("tar").arg("-C").arg(&root).args(["-cf", &tar, "."])).succeeded();
        tar
    }

    /// Has a partner sign an image.
    pub fn cosign(&self, number: usize, image: &str, more: &[&str]) -> Said {
        run(self.vendors[number].command(["cosign", image, "--product", PRODUCT]).args(more))
    }

    /// Has all of them sign their image.
    ///
    /// # Panics
    /// When one refuses.
    pub fn cosign_all(&self) {
        for number in 0..NAMES.len() {
            let mine = self.handed_on(number, "v1");
            self.cosign(number, &self.image, &["--extends", &mine]).succeeded();
        }
    }

    /// Has a partner issue a licence; gives its id and file.
    ///
    /// # Panics
    /// When it fails.
    pub fn license(&self, number: usize, more: &[&str]) -> (String, String) {
        let (id, file) = self.vendors[number].license(PRODUCT, more);
        (id, file.display().to_string())
    }

    /// The licences' files.
    pub fn files(&self) -> Vec<&str> {
        self.licenses.iter().map(|(_, file)| file.as_str()).collect()
    }

    /// Runs an image in the customer's guest; asserts that nothing stays behind.
    ///
    /// # Panics
    /// When something does.
    #[track_caller]
    #[must_use]
    pub fn run(&self, image: &str, licenses: &[&str], more: &[&str]) -> Said {
        let said = run(&mut self.guest(&["run", image], licenses, more));
        self.vendors[0].assert_nothing_left();
        said
    }

    /// A command of the shim in the customer's guest, not yet run.
    pub fn guest(&self, command: &[&str], licenses: &[&str], more: &[&str]) -> Command {
        let vendor = &self.vendors[0];
        let licenses = licenses.iter().flat_map(|license| ["--license", *license]);
        vendor.guest_command(&vendor.shim(), command.iter().copied().chain(licenses).chain(more.iter().copied()))
    }

    /// Their public signing keys.
    pub fn keys(&self) -> Vec<String> {
        self.vendors.iter().map(|vendor| vendor.home().join("signing.pub").display().to_string()).collect()
    }

    /// What a partner's service says in JSON.
    ///
    /// # Panics
    /// When it says something else.
    pub fn json(&self, number: usize, command: &[&str]) -> Value {
        let said = self.vendors[number].sealift(["--output", "json"].iter().chain(command)).succeeded();
        serde_json::from_str(&said.stdout).expect("JSON")
    }

    /// How many leases of a partner are held now.
    ///
    /// # Panics
    /// When its service does not answer.
    pub fn held(&self, number: usize) -> usize {
        let leases = self.json(number, &["lease", "list"]);
        leases.as_array().expect("leases").iter().filter(|lease| lease["state"] == "live").count()
    }

    /// A place in the scratch directory.
    pub fn path(&self, name: &str) -> String {
        self.scratch.path().join(name).display().to_string()
    }
}

fn prepare(directory: &Path) -> Vendor {
    fs::create_dir_all(directory).expect("directory");
    Vendor::prepare(directory)
}

/// The policy that comes with the use case.
pub fn policy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/partners.rego")
}

/// It shows all components, in the order of the partners.
const JOIN: &str = r#"#!/bin/sh
cat /partners/a/component /partners/b/component /partners/c/component
if [ "$1" = wait ]; then
    trap 'echo stopped; exit 0' TERM
    echo ready
    while :; do sleep 0.1; done
fi
"#;
