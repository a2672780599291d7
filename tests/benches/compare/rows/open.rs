//! The same layer opened, against skopeo that decrypts with a private key. Skopeo writes a layout, Sealift a root file system.

use std::path::Path;

use crate::contest::{Bar, Contest, Side};
use crate::images;
use crate::options::Options;
use crate::stage::{PRODUCT, Stage, oci};

pub(crate) async fn contest<'a>(stage: &'a Stage, directory: &'a Path, options: &Options) -> Contest<'a> {
    let (plain, sealed) = (directory.join("plain"), directory.join("sealed"));
    images::random(&plain, 1, options.layer_mib).await;
    stage.seal(&oci(&plain), &oci(&sealed));
    std::fs::remove_dir_all(&plain).expect("plain layer");
    let from = sealed.clone();
    let ours = Side::command("sealift-shim unpack", directory.join("bundle"), move |target| {
        stage.guest(&["unpack", &oci(&from), &target.display().to_string()])
    });
    let theirs = Side::command("skopeo copy --decryption-key", directory.join("skopeo"), move |target| {
        let mut command = stage.skopeo_copy();
        command.arg("--decryption-key").arg(stage.debian13.inside(&stage.key));
        command.args([stage.oci_inside(&sealed), stage.oci_inside(target)]);
        command
    });
    Contest {
        what: format!("open a layer of {} MiB", options.layer_mib),
        bar: Bar::Ratio { cpu: Some(0.5), wall: 0.3 },
        ours,
        theirs,
    }
}
