//! The memory of pack and of unpack as layers grow: a hundred times the layer, and the same peak. The layers' content takes no
//! room on the disk, and nothing is unpacked onto it; one sealed layer of 10 GB does.

use std::path::Path;

use crate::contest::{Bar, Contest, Side};
use crate::images;
use crate::stage::{PRODUCT, Stage, oci};

/// The larger layer, in MiB: 10 GB.
const LARGE_MIB: u32 = 9537;
/// The smaller one: 100 MB.
const SMALL_MIB: u32 = 95;
/// What the peak may grow by, in MiB.
const GROWTH_MIB: f64 = 8.0;

pub(crate) async fn contests<'a>(stage: &'a Stage, directory: &'a Path) -> Vec<Contest<'a>> {
    for mib in [SMALL_MIB, LARGE_MIB] {
        let plain = directory.join(format!("plain-{mib}"));
        images::empty(&plain, mib).await;
    }
    let pack = |mib: u32| {
        let plain = directory.join(format!("plain-{mib}"));
        Side::command(&format!("{mib} MiB"), directory.join(format!("packed-{mib}")), move |target| {
            stage.vendor.command(["pack", &oci(&plain), &oci(target), "--product", PRODUCT, "--no-progress"])
        })
        .once()
    };
    let unpack = |mib: u32| {
        let sealed = directory.join(format!("sealed-{mib}"));
        let plain = directory.join(format!("plain-{mib}"));
        Side::command(&format!("{mib} MiB"), directory.join(format!("nothing-{mib}")), move |_| {
            if !sealed.exists() {
                stage.seal(&oci(&plain), &oci(&sealed));
            }
            stage.guest(&["unpack", &oci(&sealed), "--verify-only"])
        })
        .once()
    };
    let contest =
        |what: &str, ours, theirs| Contest { what: what.to_owned(), bar: Bar::MorePeak(GROWTH_MIB), ours, theirs };
    vec![
        contest("peak of pack by the layer", pack(LARGE_MIB), pack(SMALL_MIB)),
        contest("peak of unpack by the layer", unpack(LARGE_MIB), unpack(SMALL_MIB)),
    ]
}
