//! The images of `examples/kubernetes/Containerfile`, built by buildah of Debian 13.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::chart::folder;
use crate::debian13::Debian13;
use crate::peer::{program, run};

/// Builds one of the images; gives its OCI layout in `scratch`, a folder of the box, under the tag `image`.
///
/// # Panics
/// When it cannot be built.
pub fn build_image(debian13: &Debian13, scratch: &Path, target: &str) -> PathBuf {
    let context = static_programs();
    let scratch = scratch.join("images");
    let here = scratch.join("context");
    std::fs::create_dir_all(&here).expect("directory");
    for name in ["sealift", "sealift-shim", "nsswitch.conf", "ca-certificates.crt"] {
        std::fs::copy(context.join(name), here.join(name)).expect("context");
    }
    std::fs::copy(folder().join("Containerfile"), scratch.join("Containerfile")).expect("Containerfile");
    let inside = |name: &str| debian13.inside(&scratch.join(name));
    let buildah = || {
        let mut buildah = debian13.machine("buildah");
        buildah.args(["--storage-driver", "vfs", "--root", &inside("storage"), "--runroot", &inside("storage-run")]);
        buildah
    };
    let build = ["build", "--isolation", "chroot", "--target", target, "--tag", target, "--file"];
    run(buildah().args(build).args([inside("Containerfile"), inside("context")])).succeeded();
    let layout = format!("oci:{}:image", inside(target));
    run(buildah().args(["push", "--quiet", target, &layout])).succeeded();
    scratch.join(target)
}

/// Where the programs without shared libraries are, as `build-images` made them of this state of the sources.
///
/// # Panics
/// When they are not there.
pub fn static_programs() -> PathBuf {
    const HINT: &str = "run examples/kubernetes/build-images --profile dev --context-only, or tests/run, which does";
    let made = program("sealift").parent().and_then(Path::parent).expect("target").join("images/dev");
    let Ok(of) = std::fs::read_to_string(made.join("sources")) else {
        panic!("there are no programs without libraries in {}: {HINT}", made.display())
    };
    let now = run(Command::new(folder().join("build-images")).arg("--sources")).succeeded().stdout;
    assert_eq!(of, now, "the sources are others now: {HINT}");
    made
}
