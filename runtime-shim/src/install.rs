//! `install`: tells a container engine of this program, and takes that back. What each engine must be told is in its module.

mod containerd;
mod containers;
mod docker;
mod plan;
mod record;
mod version;

use std::path::PathBuf;

use command_line::{Console, ExitCode, Failure, FailureContext as _};
use serde_json::{Value, json};

use crate::cli::{Engine, InstallArgs};
use plan::{PlannedCopy, PlannedFile};
use record::Root;
use version::Version;

/// What all engines are told.
struct Programs {
    /// This program.
    shim: PathBuf,
    /// The runtime behind it.
    oci_runtime: PathBuf,
    /// The agent's socket.
    agent: PathBuf,
}

pub(crate) fn run(args: InstallArgs, console: &Console) -> Result<(), Failure> {
    let root = Root::new(args.root.clone());
    let engine = args.engine;
    if args.undo {
        return undo(&root, engine, console);
    }
    let version = match &args.engine_version {
        Some(text) => text.parse(),
        None => Version::of(engine.program()),
    }?;
    let shim = args.program.shim.map_or_else(std::env::current_exe, Ok);
    let shim = shim.or_fail(ExitCode::Other, || "cannot tell where this program is".to_owned())?;
    let programs = Programs { shim, oci_runtime: args.oci_runtime, agent: args.agent.socket };
    let mut plan = match engine {
        Engine::Containerd => containerd::plan(&root, version, &programs)?,
        Engine::Podman => containers::podman(version, &programs)?,
        Engine::Crio => containers::crio(&programs)?,
        Engine::Docker => docker::plan(&root, &programs)?,
    };
    if args.program.copy {
        plan.program = Some(programs.copy()?);
    }
    if args.write {
        record::write(&root, engine.program(), &plan)?;
        for note in &plan.notes {
            console.say(note);
        }
    }
    let written = if args.write { "written" } else { "planned" };
    console.result(
        &json!({"engine": engine.program(), "version": version.to_string(), written: plan.to_json()}),
        || {
            if args.write { plan.paths().join("\n") } else { plan.to_string() }
        },
    );
    Ok(())
}

fn undo(root: &Root, engine: Engine, console: &Console) -> Result<(), Failure> {
    let removed = record::undo(root, engine.program())?;
    console.result(&json!({"engine": engine.program(), "removed": removed}), || removed.join("\n"));
    Ok(())
}

impl Programs {
    /// Where the program stands that engines know as an OCI runtime: they pass the runtime's own arguments and no others.
    const RUNTIME: &str = "/usr/local/libexec/sealift-oci-runtime";
    /// The key providers of ocicrypt's tools.
    const PROVIDERS: &str = "/etc/sealift/ocicrypt.json";

    fn runtime(&self) -> Result<PlannedFile, Failure> {
        let [shim, agent, runtime] = [&self.shim, &self.agent, &self.oci_runtime].map(|path| quoted(path));
        let (shim, agent, runtime) = (shim?, agent?, runtime?);
        let content = format!(
            "#!/bin/sh\n# The OCI runtime `sealift`: no lease, no start; lease lost, stop.\nexec {shim} oci-runtime --agent {agent} --inner {runtime} \"$@\"\n"
        );
        Ok(PlannedFile { path: Self::RUNTIME.to_owned(), content, mode: 0o755 })
    }

    /// This very program, for a system that has it from nowhere else.
    fn copy(&self) -> Result<PlannedCopy, Failure> {
        let content = std::fs::read("/proc/self/exe");
        let content = content.or_fail(ExitCode::Other, || "cannot read this program".to_owned())?;
        Ok(PlannedCopy { path: text(&self.shim)?.to_owned(), content })
    }

    /// Both names that images' annotations have; the one that is asked for on command lines does not matter.
    fn providers(&self) -> Result<PlannedFile, Failure> {
        let (shim, agent) = (text(&self.shim)?, text(&self.agent)?);
        let provider = json!({"cmd": {"path": shim, "args": ["keyprovider", "--agent", agent]}});
        let names = [ocicrypt::keyprovider::PROVIDER, ocicrypt::keyprovider::OWN_PROVIDER];
        let content = document(&json!({"key-providers": {names[0]: provider, names[1]: provider}}))?;
        Ok(PlannedFile { path: Self::PROVIDERS.to_owned(), content, mode: 0o644 })
    }
}

/// A document as files have it.
fn document(value: &Value) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").or_fail(ExitCode::Other, || "cannot write a document".to_owned())
}

/// A path as configuration files have it.
fn text(path: &std::path::Path) -> Result<&str, Failure> {
    path.to_str()
        .filter(|text| text.starts_with('/') && !text.contains(char::is_control))
        .ok_or_else(|| Failure::usage(format!("`{}` is no absolute path that can be written down", path.display())))
}

/// A path as a word of a shell.
fn quoted(path: &std::path::Path) -> Result<String, Failure> {
    Ok(format!("'{}'", text(path)?.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests;
