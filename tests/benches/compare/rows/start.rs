//! From nothing to the first instruction of a 5 MB image with a warm service: what the shim adds to runc with the same bundle.
//! The simulated platform, which a guest does not have, is started on both sides.

use std::path::Path;
use std::process::Command;

use end_to_end::peer::{peer, run};

use crate::contest::{Bar, Contest, Side};
use crate::images;
use crate::stage::{Stage, oci};

pub(crate) async fn contest<'a>(stage: &'a Stage, directory: &'a Path) -> Contest<'a> {
    let (plain, sealed, bundle) = (directory.join("plain"), directory.join("sealed"), directory.join("bundle"));
    images::busybox(&plain, 5_000_000).await;
    stage.seal(&oci(&plain), &oci(&sealed));
    run(&mut stage.guest(&["unpack", &oci(&sealed), &bundle.display().to_string()])).succeeded();
    drop(peer("runc"));
    let ours = Side::command("sealift-shim run", directory.join("state"), move |target| {
        let state = target.display().to_string();
        stage.guest(&["run", &oci(&sealed), "--runtime", "runc", "--state-dir", &state])
    });
    let theirs = Side::command("runc run", directory.join("runc"), move |target| {
        let mut platform = stage.vendor.guest_command(&stage.vendor.shim(), ["completions", "bash"]);
        platform.env("BUNDLE", &bundle).env("NAME", target.file_name().expect("name"));
        after(&platform, r#"exec runc run --bundle "$BUNDLE" "$NAME""#)
    });
    Contest { what: "attest to first instruction, 5 MB".to_owned(), bar: Bar::MoreMilliseconds(60.0), ours, theirs }
}

/// The command, and then a line of shell.
fn after(first: &Command, line: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("\"$@\" >/dev/null && {line}"))
        .arg("sh")
        .arg(first.get_program())
        .args(first.get_args());
    for (name, value) in first.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}
