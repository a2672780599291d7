//! What a launch says for a guest that cannot speak our protocol: members of its initialisation data, which the report binds
//! by `HOST_DATA`. Confidential Containers' form: TOML or JSON with a table `data` of named texts.

use kbs_types::InitData;
use serde::Deserialize;

use crate::message::{RuntimeData, Workload};

/// The longest initialisation data that are read, in bytes.
pub const INIT_DATA_MAX: usize = 256 * 1024;

/// Who said what a guest runs and under which licence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StatedBy {
    /// The guest's own program, in its runtime data: our shim.
    Guest,
    /// Whoever launched the guest, in its initialisation data: the guest is a stock client.
    Launch,
}

/// The members that are meant for us. Whoever launches the guest writes them: what they say has to be judged.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
pub struct LaunchStatement {
    /// The licence's compact JWS.
    #[serde(rename = "sealift.license")]
    pub license: Option<String>,
    /// `sha256:…` of the image manifest that is to run.
    #[serde(rename = "sealift.manifest")]
    pub manifest: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    data: LaunchStatement,
}

impl LaunchStatement {
    /// Reads them. Data of another form than these say nothing to us: they are the guest's own matter.
    pub fn read(init_data: &InitData) -> Self {
        let InitData { format, body } = init_data;
        if body.len() > INIT_DATA_MAX {
            return Self::default();
        }
        let document: Option<Document> = match format.as_str() {
            "toml" => toml::from_str(body).ok(),
            "json" => serde_json::from_str(body).ok(),
            _ => None,
        };
        document.map(|document| document.data).unwrap_or_default()
    }
}

impl RuntimeData {
    /// Adds what the launch says where the guest itself states neither licence nor workload. One that shows a licence speaks
    /// our protocol: what it leaves out it does not ask for.
    pub fn completed(mut self, init_data: Option<&InitData>) -> (Self, StatedBy) {
        let (None, None, Some(init_data)) = (&self.license, &self.workload, init_data) else {
            return (self, StatedBy::Guest);
        };
        let LaunchStatement { license, manifest: Some(manifest_digest) } = LaunchStatement::read(init_data) else {
            return (self, StatedBy::Guest);
        };
        self.workload = Some(Workload { manifest_digest, signers: Vec::new(), command: Vec::new() });
        self.license = license;
        (self, StatedBy::Launch)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const DIGEST: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

    fn toml(data: &str) -> InitData {
        let body =
            format!("version = \"0.1.0\"\nalgorithm = \"sha256\"\n\n[data]\n\"cdh.toml\" = '''\n[kbc]\n'''\n{data}");
        InitData { format: "toml".to_owned(), body }
    }

    fn stock() -> RuntimeData {
        let key = json!({"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "x", "y": "y"});
        serde_json::from_value(json!({"nonce": "n", "tee-pubkey": key})).unwrap()
    }

    #[test]
    fn a_stock_client_runs_what_its_launch_names() {
        let init_data = toml(&format!("\"sealift.license\" = \"token\"\n\"sealift.manifest\" = \"{DIGEST}\"\n"));
        let (stated, by) = stock().completed(Some(&init_data));
        assert_eq!(by, StatedBy::Launch);
        assert_eq!(stated.license.as_deref(), Some("token"));
        assert_eq!(stated.workload.unwrap().manifest_digest, DIGEST);
        let body = json!({"data": {"sealift.license": "token", "sealift.manifest": DIGEST}}).to_string();
        let (stated, by) = stock().completed(Some(&InitData { format: "json".to_owned(), body }));
        assert_eq!((by, stated.license.as_deref()), (StatedBy::Launch, Some("token")));
    }

    #[test]
    fn what_a_guest_states_itself_counts_before_what_its_launch_says() {
        let init_data = toml(&format!("\"sealift.license\" = \"token\"\n\"sealift.manifest\" = \"{DIGEST}\"\n"));
        let mut own = stock();
        own.workload = Some(Workload { manifest_digest: "sha256:2".to_owned(), signers: vec![], command: vec![] });
        let (stated, by) = own.completed(Some(&init_data));
        assert_eq!((by, stated.license), (StatedBy::Guest, None));
        assert_eq!(stated.workload.unwrap().manifest_digest, "sha256:2");
        // Our shim's `attest` shows a licence and asks for no lease.
        let shown = RuntimeData { license: Some("own".to_owned()), ..stock() };
        let (stated, by) = shown.completed(Some(&init_data));
        assert_eq!((by, stated.license.as_deref(), stated.workload), (StatedBy::Guest, Some("own"), None));
    }

    #[test]
    fn a_launch_that_names_no_manifest_says_nothing() {
        for init_data in [
            None,
            Some(toml("\"sealift.license\" = \"token\"\n")),
            Some(InitData { format: "toml".to_owned(), body: "no toml".to_owned() }),
            Some(InitData {
                format: "text".to_owned(),
                body: format!("[data]\n\"sealift.manifest\" = \"{DIGEST}\"\n"),
            }),
            Some(toml(&format!("\"sealift.manifest\" = \"{DIGEST}\"\nmore = \"{}\"\n", "x".repeat(INIT_DATA_MAX)))),
        ] {
            let (stated, by) = stock().completed(init_data.as_ref());
            assert_eq!((by, stated.workload, stated.license), (StatedBy::Guest, None, None));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(format in "toml|json|text", body in "\\PC*") {
            let _ = LaunchStatement::read(&InitData { format, body });
        }
    }
}
