//! The end at which a carried file is written.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use command_line::{ExitCode, Failure, FailureContext as _, write_new};

use crate::picture;
use crate::series::{Content, lines};

/// Where to write: a file, a series of codes, or both.
// Both from one run, since what is carried is made once: a second request would void the first, and each is answered once. Codes go to
// a folder, as pictures: they are shown or printed where there is a screen or a printer, which the guest itself
// seldom has; on a terminal the finest would need 125 columns and 63 lines.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = true)]
pub struct CarriedOutput {
    /// Write to this file; an existing one is not overwritten.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write as a series of QR codes (`1-of-5.png`) to this new or empty folder, instead of the file or beside it.
    #[arg(long, value_name = "DIR")]
    qr: Option<PathBuf>,
}

impl CarriedOutput {
    /// Refuses what exists and makes the folder, before something is made that cannot be had twice.
    pub fn prepare(&self) -> Result<Prepared<'_>, Failure> {
        if let Some(out) = self.out.as_ref().filter(|out| out.exists()) {
            return Err(Failure::bad_input(format!("`{}` exists already", out.display())).hint("name another file"));
        }
        let Some(folder) = &self.qr else { return Ok(Prepared { output: self, made: None }) };
        let made = match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => empty(folder).map(|()| None),
            made => made
                .or_fail(ExitCode::BadInput, || format!("cannot make `{}`", folder.display()))
                .map(|()| Some(folder.as_path())),
        }?;
        Ok(Prepared { output: self, made })
    }
}

/// An output that can be written to. A folder that it made and that nothing came into goes with it.
#[derive(Debug)]
pub struct Prepared<'a> {
    output: &'a CarriedOutput,
    made: Option<&'a Path>,
}

impl<'a> Prepared<'a> {
    /// Draws the codes, if they are wanted.
    pub fn render<'b>(&self, content: Content, bytes: &'b [u8]) -> Result<Ready<'b>, Failure>
    where
        'a: 'b,
    {
        let codes = match &self.output.qr {
            Some(folder) => codes(folder, content, bytes)?,
            None => Vec::new(),
        };
        Ok(Ready { output: self.output, bytes, codes })
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if let Some(folder) = self.made {
            // One with codes in it stays.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn empty(folder: &Path) -> Result<(), Failure> {
    let mut entries =
        fs::read_dir(folder).or_fail(ExitCode::BadInput, || format!("cannot list `{}`", folder.display()))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(Failure::bad_input(format!("`{}` is not empty", folder.display()))
            .hint("name a new folder: codes of two files among each other would fit nothing")),
    }
}

fn codes(folder: &Path, content: Content, bytes: &[u8]) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
    let cannot = || format!("{} cannot be written as QR codes", content.name());
    let lines = lines(content, bytes)
        .or_fail(ExitCode::BadInput, cannot)
        .map_err(|failure| failure.hint("carry it as a file (`--out FILE`)"))?;
    // In the order of the parts also where names are sorted by their letters.
    let (total, digits) = (lines.len(), lines.len().to_string().len());
    let code = |(index, line): (usize, &String)| {
        let name = format!("{:0digits$}-of-{total}.png", index + 1);
        Ok((folder.join(name), picture::png(line).or_fail(ExitCode::Other, cannot)?))
    };
    lines.iter().enumerate().map(code).collect()
}

/// All that has to be written.
#[derive(Debug)]
pub struct Ready<'a> {
    output: &'a CarriedOutput,
    bytes: &'a [u8],
    codes: Vec<(PathBuf, Vec<u8>)>,
}

impl Ready<'_> {
    /// Writes it, with `mode` for each file.
    pub fn write(&self, mode: u32) -> Result<(), Failure> {
        if let Some(out) = self.file() {
            write_new(out, self.bytes, mode)?;
        }
        self.codes.iter().try_for_each(|(path, png)| write_new(path, png, mode))
    }

    /// The file, if one is wanted.
    pub fn file(&self) -> Option<&Path> {
        self.output.out.as_deref()
    }

    /// The codes in the order of their parts.
    pub fn codes(&self) -> Vec<&Path> {
        self.codes.iter().map(|(path, _)| path.as_path()).collect()
    }

    /// What was written where, for people.
    pub fn places(&self) -> String {
        let file = self.file().map(|out| format!("`{}` ({} bytes)", out.display(), self.bytes.len()));
        let codes =
            self.output.qr.as_ref().map(|folder| format!("{} QR codes in `{}`", self.codes.len(), folder.display()));
        file.into_iter().chain(codes).collect::<Vec<_>>().join(" and ")
    }
}
