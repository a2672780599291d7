//! `trace`: whose copy an unpacked tree is.

use std::path::Path;

use command_line::{Console, Failure};
use serde_json::{Value, json};

use crate::home::VendorHome;
use crate::pack::MarkKey;

pub(crate) fn run(home: &VendorHome, directory: &Path, console: &Console) -> Result<(), Failure> {
    let (marks, files) = MarkKey::read(home)?.trace(directory)?;
    if marks.is_empty() {
        return Err(Failure::other(format!(
            "no watermark of this home is in `{}` ({files} files)",
            directory.display()
        ))
        .hint("look into the whole tree; `--home` names another home"));
    }
    let documents: Vec<Value> = marks.iter().map(|(path, mark)| json!({"path": path, "mark": mark})).collect();
    console.result(&json!({"marks": documents, "files": files}), || {
        let lines: Vec<_> = marks
            .iter()
            .map(|(path, mark)| {
                format!("{}: {} of {}, packed {}", mark.customer, mark.image, mark.product, mark.packed_at)
                    + &format!(" ({})", path.display())
            })
            .collect();
        lines.join("\n")
    });
    Ok(())
}
