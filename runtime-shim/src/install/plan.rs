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

/// This program, at the place where the engine will find it.
pub(super) struct PlannedCopy {
    /// Its absolute path.
    pub(super) path: String,
    pub(super) content: Vec<u8>,
}

/// Not the program itself.
impl fmt::Debug for PlannedCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlannedCopy({}, {} bytes)", self.path, self.content.len())
    }
}

/// A file as it is written.
pub(super) struct Writing<'a> {
    pub(super) path: &'a str,
    pub(super) content: &'a [u8],
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
    pub(super) program: Option<PlannedCopy>,
    pub(super) lines: Vec<PlannedLine>,
    /// What is left to do, for people.
    pub(super) notes: Vec<&'static str>,
}

impl Plan {
    /// Every file that is written as a whole. What others name comes first.
    pub(super) fn writings(&self) -> impl Iterator<Item = Writing<'_>> {
        let program = self.program.iter().map(|copy| Writing { path: &copy.path, content: &copy.content, mode: 0o755 });
        let files = self.files.iter();
        program.chain(files.map(|file| Writing { path: &file.path, content: file.content.as_bytes(), mode: file.mode }))
    }

    /// Every file that is touched.
    pub(super) fn paths(&self) -> Vec<&str> {
        self.writings().map(|file| file.path).chain(self.lines.iter().map(|line| line.path.as_str())).collect()
    }

    pub(super) fn to_json(&self) -> Value {
        let files = self
            .files
            .iter()
            .map(|file| json!({"path": file.path, "mode": format!("{:o}", file.mode), "content": file.content}));
        let lines = self.lines.iter().map(|line| json!({"path": line.path, "first_line": line.line}));
        let mut plan =
            json!({"files": files.collect::<Vec<_>>(), "lines": lines.collect::<Vec<_>>(), "notes": self.notes});
        if let Some(program) = &self.program {
            plan["program"] = json!(program.path);
        }
        plan
    }
}

/// Every file under its name, and what is left to do.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = self.program.iter().map(|copy| (&copy.path, ", this program", ""));
        let files = self.files.iter().map(|file| (&file.path, "", file.content.as_str()));
        let lines = self.lines.iter().map(|line| (&line.path, ", as its first line", line.line.as_str()));
        for (number, (path, how, content)) in program.chain(files).chain(lines).enumerate() {
            let gap = if number == 0 { "" } else { "\n" };
            writeln!(f, "{}", format!("{gap}==> {path}{how}\n{}", content.trim_end()).trim_end())?;
        }
        let notes = self.notes.iter().map(|note| format!("# {note}")).collect::<Vec<_>>();
        write!(f, "\n{}", notes.join("\n"))
    }
}
