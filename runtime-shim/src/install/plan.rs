//! What is to be written: files of our own, and single lines in files of others.

use std::fmt;

use serde_json::{Value, json};

/// A file of our own.
#[derive(Debug)]
pub(super) struct PlannedFile {
    /// Its absolute path.
    pub(super) path: String,
    pub(super) content: String,
    pub(super) mode: u32,
}

/// A line that goes before everything else in a file that is there.
#[derive(Debug)]
pub(super) struct PlannedLine {
    /// The file's absolute path.
    pub(super) path: String,
    /// The line, without its end.
    pub(super) line: String,
}

/// All that one engine is told.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) files: Vec<PlannedFile>,
    pub(super) lines: Vec<PlannedLine>,
    /// What is left to do, for people.
    pub(super) notes: Vec<&'static str>,
}

impl Plan {
    /// Every file that is touched.
    pub(super) fn paths(&self) -> Vec<&str> {
        self.files
            .iter()
            .map(|file| file.path.as_str())
            .chain(self.lines.iter().map(|line| line.path.as_str()))
            .collect()
    }

    pub(super) fn to_json(&self) -> Value {
        let files = self
            .files
            .iter()
            .map(|file| json!({"path": file.path, "mode": format!("{:o}", file.mode), "content": file.content}));
        let lines = self.lines.iter().map(|line| json!({"path": line.path, "first_line": line.line}));
        json!({"files": files.collect::<Vec<_>>(), "lines": lines.collect::<Vec<_>>(), "notes": self.notes})
    }
}

/// Every file under its name, and what is left to do.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.iter().map(|file| (&file.path, "", file.content.as_str()));
        let lines = self.lines.iter().map(|line| (&line.path, ", as its first line", line.line.as_str()));
        for (number, (path, how, content)) in files.chain(lines).enumerate() {
            let gap = if number == 0 { "" } else { "\n" };
            writeln!(f, "{gap}==> {path}{how}\n{}", content.trim_end())?;
        }
        let notes = self.notes.iter().map(|note| format!("# {note}")).collect::<Vec<_>>();
        write!(f, "\n{}", notes.join("\n"))
    }
}
