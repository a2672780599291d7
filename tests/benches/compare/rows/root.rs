//! From a registry to a root file system in memory, against skopeo and umoci: an application of five gzip layers, and one large
//! layer that nothing compresses.

use std::path::Path;

use crate::contest::{Bar, Contest, Side};
use crate::images;
use crate::stage::{Stage, oci};

/// About 700 MB of programs, libraries and documents, 25,000 entries.
pub(crate) async fn application<'a>(stage: &'a Stage, directory: &'a Path) -> Contest<'a> {
    let plain = directory.join("plain");
    let bytes = images::application(&plain, stage.debian13.root()).await;
    let what = format!("registry to root file system, {} MB in 5 gzip layers", bytes / 1_000_000);
    contest(stage, directory, &plain, what, Bar::Ratio { cpu: Some(0.5), wall: 0.25 })
}

/// 2 GiB of random bytes.
pub(crate) async fn large<'a>(stage: &'a Stage, directory: &'a Path) -> Contest<'a> {
    let plain = directory.join("plain");
    images::random(&plain, 1, 2048).await;
    let what = "registry to root file system, a layer of 2048 MiB".to_owned();
    contest(stage, directory, &plain, what, Bar::Ratio { cpu: None, wall: 0.3 })
}

fn contest<'a>(stage: &'a Stage, directory: &'a Path, plain: &Path, what: String, bar: Bar) -> Contest<'a> {
    let sealed = stage.seal(&oci(plain), &stage.registry.reference("application:v1"));
    std::fs::remove_dir_all(plain).expect("plain image");
    let name = sealed.clone();
    let ours = Side::command("sealift-shim unpack", directory.join("bundle"), move |target| {
        stage.guest(&["unpack", &name, &target.display().to_string()])
    });
    let theirs = Side::command("skopeo copy, umoci unpack", directory.join("umoci"), move |target| {
        let mut command = stage.debian13.command("sh");
        command.args(["-c", SKOPEO_AND_UMOCI, "sh"]);
        command.arg(stage.debian13.inside(&stage.key)).arg(&sealed).arg(stage.debian13.inside(target));
        command
    });
    Contest { what, bar, ours, theirs }
}

/// The key, the sealed image, a folder for all that is made.
const SKOPEO_AND_UMOCI: &str = r#"mkdir "$3" && umask 022 &&
skopeo copy --src-tls-verify=false --decryption-key "$1" "$2" "oci:$3/layout:v1" &&
umoci unpack --image "$3/layout:v1" "$3/bundle""#;
