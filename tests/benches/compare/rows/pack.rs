//! Incompressible layers, `oci:` to `oci:`, against skopeo that encrypts for a public key.

use std::path::Path;

use crate::contest::{Bar, Contest, Side};
use crate::images;
use crate::stage::{PRODUCT, Stage, oci};

pub(crate) async fn contest<'a>(stage: &'a Stage, directory: &'a Path, layers: usize, mib: u32) -> Contest<'a> {
    let plain = directory.join("plain");
    images::random(&plain, layers, mib).await;
    let from = plain.clone();
    let ours = Side::command("sealift pack", directory.join("sealed"), move |target| {
        stage.vendor.command(["pack", &oci(&from), &oci(target), "--product", PRODUCT, "--no-progress"])
    });
    let theirs = Side::command("skopeo copy --encryption-key", directory.join("skopeo"), move |target| {
        let mut command = stage.skopeo_copy();
        command.arg("--encryption-key").arg(format!("jwe:{}", stage.debian13.inside(&stage.public_key)));
        command.args([stage.oci_inside(&plain), stage.oci_inside(target)]);
        command
    });
    Contest {
        what: format!("pack {layers} × {mib} MiB"), bar: Bar::Ratio { cpu: Some(0.7), wall: 0.45 }, ours, theirs
    }
}
