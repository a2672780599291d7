//! A sealed layer opened, against skopeo that decrypts it with a private key into a layout. Sealift attests, decrypts and checks,
//! and writes nothing; and again, with a root file system at the end.

use std::path::{Path, PathBuf};

use crate::contest::{Bar, Contest, Side};
use crate::images;
use crate::options::Options;
use crate::stage::{Stage, oci};

pub(crate) async fn contests<'a>(stage: &'a Stage, directory: &'a Path, options: &Options) -> Vec<Contest<'a>> {
    let (plain, sealed) = (directory.join("plain"), directory.join("sealed"));
    images::random(&plain, 1, options.layer_mib).await;
    stage.seal(&oci(&plain), &oci(&sealed));
    std::fs::remove_dir_all(&plain).expect("plain layer");
    let contest = |what: &str, ours| Contest {
        what: format!("open a layer of {} MiB{what}", options.layer_mib),
        bar: Bar::Ratio { cpu: Some(0.5), wall: 0.3 },
        ours,
        theirs: skopeo(stage, directory, sealed.clone()),
    };
    let verify = Side::command("sealift-shim unpack --verify-only", directory.join("nothing"), |_| {
        stage.guest(&["unpack", &oci(&directory.join("sealed")), "--verify-only"])
    });
    let unpack = Side::command("sealift-shim unpack", directory.join("bundle"), |target| {
        stage.guest(&["unpack", &oci(&directory.join("sealed")), &target.display().to_string()])
    });
    vec![contest("", verify), contest(" to a root file system", unpack)]
}

fn skopeo<'a>(stage: &'a Stage, directory: &Path, sealed: PathBuf) -> Side<'a> {
    Side::command("skopeo copy --decryption-key", directory.join("skopeo"), move |target| {
        let mut command = stage.skopeo_copy();
        command.arg("--decryption-key").arg(stage.debian13.inside(&stage.key));
        command.args([stage.oci_inside(&sealed), stage.oci_inside(target)]);
        command
    })
}
