//! What is to be written: files of our own, and single lines in files of others.

use std::fmt;

use serde::{Deserialize, Serialize};
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

/// A line that goes into a file that is there, and stays the only change in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlannedLine {
    /// The file's absolute path.
    pub(super) path: String,
    /// The line, without its end.
    pub(super) line: String,
    #[serde(default)]
    pub(super) position: Position,
}

/// Where in a file a line goes.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Position {
    /// Before everything else.
    #[default]
    First,
    /// Behind the brace that opens a JSON object.
    FirstEntry,
}

impl PlannedLine {
    /// The text with the line in it.
    pub(super) fn insert(&self, text: &str) -> String {
        let (before, behind) = self.split(text);
        format!("{before}{}{behind}", self.inserted())
    }

    /// The text without the line; `None` where it does not stand in its place.
    pub(super) fn remove(&self, text: &str) -> Option<String> {
        let (before, behind) = self.split(text);
        let rest = behind.strip_prefix(&self.inserted())?;
        // Of an object that was empty: somebody's entry has followed with a comma before it.
        let is_last = self.position == Position::FirstEntry && !self.line.ends_with(',');
        let rest = rest.strip_prefix(',').filter(|_| is_last).unwrap_or(rest);
        Some(format!("{before}{rest}"))
    }

    fn split<'a>(&self, text: &'a str) -> (&'a str, &'a str) {
        let end = match self.position {
            Position::First => 0,
            Position::FirstEntry => text.find('{').map_or(0, |brace| brace + 1),
        };
        text.split_at(end)
    }

    fn inserted(&self) -> String {
        match self.position {
            Position::First => format!("{}\n", self.line),
            Position::FirstEntry => format!("\n{}", self.line),
        }
    }

    fn place(&self) -> &'static str {
        match self.position {
            Position::First => "first_line",
            Position::FirstEntry => "first_entry",
        }
    }
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
        let lines = self.lines.iter().map(|line| json!({"path": line.path, line.place(): line.line}));
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
        let lines = self.lines.iter().map(|line| {
            let place = match line.position {
                Position::First => ", as its first line",
                Position::FirstEntry => ", as its first entry",
            };
            (&line.path, place, line.line.as_str())
        });
        for (number, (path, how, content)) in program.chain(files).chain(lines).enumerate() {
            let gap = if number == 0 { "" } else { "\n" };
            writeln!(f, "{}", format!("{gap}==> {path}{how}\n{}", content.trim_end()).trim_end())?;
        }
        let notes = self.notes.iter().map(|note| format!("# {note}")).collect::<Vec<_>>();
        write!(f, "\n{}", notes.join("\n"))
    }
}
