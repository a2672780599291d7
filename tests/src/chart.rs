//! The Helm chart: rendered by Helm's own engine, every document checked against the schemas of Kubernetes.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::peer::{Said, fixture};
use crate::python::python_with;

/// Helm 4 as a library, and the schemas of Kubernetes 1.25 to 1.37.
const PACKAGES: [&str; 2] = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0"];
/// The oldest version that the chart is for, one between, and the newest whose schemas there are.
const VERSIONS: [&str; 3] = ["1.30", "1.34", "1.37"];

/// What renders and checks charts.
#[derive(Debug)]
pub struct Helm {
    python: PathBuf,
}

impl Helm {
    /// Made once below `folder`, which stays.
    ///
    /// # Panics
    /// When it cannot be made.
    pub fn open(folder: &Path) -> Self {
        Self { python: python_with(&folder.join("helm"), &PACKAGES) }
    }

    /// Lints, renders and checks a chart as release `sealift`.
    ///
    /// # Panics
    /// When Python does not run.
    pub fn try_render(&self, chart: &Path, values: &Value) -> Said {
        self.run("render-chart.py", &json!({"chart": chart, "values": values, "versions": VERSIONS}))
    }

    /// The documents of our chart.
    ///
    /// # Panics
    /// When it cannot be rendered, or a document is none of Kubernetes'.
    pub fn render(&self, values: &Value) -> Documents {
        let said = self.try_render(&folder().join("chart"), values).succeeded();
        Documents(serde_json::from_str(&said.stdout).expect("documents"))
    }

    /// Checks files with documents and gives these.
    ///
    /// # Panics
    /// When a document is none of Kubernetes'.
    pub fn check(&self, files: &[PathBuf]) -> Documents {
        let said = self.run("render-chart.py", &json!({"files": files, "versions": VERSIONS})).succeeded();
        Documents(serde_json::from_str(&said.stdout).expect("documents"))
    }

    fn run(&self, script: &str, asked: &Value) -> Said {
        let mut command = Command::new(&self.python);
        command.arg(fixture(script)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("python");
        child.stdin.take().expect("stdin").write_all(asked.to_string().as_bytes()).expect("python reads");
        child.wait_with_output().expect("python").into()
    }
}

/// `examples/kubernetes`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes")
}

/// What a chart renders to.
#[derive(Debug)]
pub struct Documents(pub Vec<Value>);

impl Documents {
    /// The one document of a kind, if there is one.
    ///
    /// # Panics
    /// When there are several.
    pub fn find(&self, kind: &str) -> Option<&Value> {
        let mut found = self.0.iter().filter(|document| document["kind"] == kind);
        let first = found.next();
        assert!(found.next().is_none(), "several of kind {kind}");
        first
    }

    /// The one document of a kind.
    ///
    /// # Panics
    /// When there is none.
    pub fn get(&self, kind: &str) -> &Value {
        self.find(kind).unwrap_or_else(|| panic!("no {kind} among {:?}", self.kinds()))
    }

    /// The kinds of all.
    pub fn kinds(&self) -> Vec<&str> {
        self.0.iter().filter_map(|document| document["kind"].as_str()).collect()
    }

    /// The pods that they make, each with the name of what makes it.
    pub fn pods(&self) -> Vec<&Value> {
        self.0
            .iter()
            .filter_map(|document| match document["kind"].as_str()? {
                "Pod" => Some(&document["spec"]),
                _ => document.pointer("/spec/template/spec"),
            })
            .collect()
    }
}

/// All containers of a pod, those that run first included.
pub fn containers(pod: &Value) -> Vec<&Value> {
    let lists = ["initContainers", "containers"].map(|name| pod[name].as_array());
    lists.into_iter().flatten().flatten().collect()
}

/// The one of a pod's containers that has this name.
///
/// # Panics
/// When there is none.
pub fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let found = containers(pod).into_iter().find(|container| container["name"] == name);
    found.unwrap_or_else(|| panic!("no container {name}"))
}

/// A list of texts.
pub fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
