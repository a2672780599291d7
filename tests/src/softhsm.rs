//! A token of `SoftHSM` in a temporary folder, with an AES key that does not leave it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peer::{Said, peer, run};

/// The PIN of the token's user.
pub const PIN: &str = "5678";
/// What the token is called.
pub const TOKEN: &str = "shop";

/// The token.
#[derive(Debug)]
pub struct Token {
    config: PathBuf,
}

impl Token {
    /// Makes a token in `folder`, without a key.
    ///
    /// # Panics
    /// When `SoftHSM` is absent or makes none.
    pub fn make(folder: &Path) -> Self {
        let tokens = folder.join("tokens");
        fs::create_dir_all(&tokens).expect("folder");
        let config = folder.join("softhsm2.conf");
        let text =
            format!("directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n", tokens.display());
        fs::write(&config, text).expect("configuration");
        let mut init = peer("softhsm2-util");
        init.env("SOFTHSM2_CONF", &config).args(["--init-token", "--free", "--label", TOKEN, "--so-pin", "12345678"]);
        run(init.args(["--pin", PIN])).succeeded();
        Self { config }
    }

    /// Has the token make an AES key.
    ///
    /// # Panics
    /// When it does not.
    pub fn make_key(&self, label: &str, id: &str, more: &[&str]) {
        let make = ["--keygen", "--key-type", "aes:32", "--label", label, "--id", id];
        run(self.tool().args(make).args(more)).succeeded();
    }

    /// What `OpenSC`'s tool says of the keys.
    pub fn keys(&self) -> Said {
        run(self.tool().args(["--list-objects", "--type", "secrkey"]))
    }

    /// What it says when it is to read a key.
    pub fn read_key(&self, label: &str) -> Said {
        run(self.tool().args(["--read-object", "--type", "secrkey", "--label", label]))
    }

    fn tool(&self) -> Command {
        let mut tool = peer("pkcs11-tool");
        tool.env("SOFTHSM2_CONF", &self.config).args(["--module", &module(), "--token-label", TOKEN]);
        tool.args(["--login", "--pin", PIN]);
        tool
    }

    /// What a service is told of it by its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("SOFTHSM2_CONF".to_owned(), self.config.display().to_string()),
            ("SEALIFT_PKCS11_MODULE".to_owned(), module()),
            ("SEALIFT_PKCS11_PIN".to_owned(), PIN.to_owned()),
        ]
    }
}

fn module() -> String {
    let module = "/usr/lib/softhsm/libsofthsm2.so";
    assert!(
        Path::new(module).exists(),
        "SoftHSM is not installed: install Debian's package softhsm2, or run tests/run"
    );
    module.to_owned()
}
