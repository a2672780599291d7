//! The end at which a carried file is read.

use std::fs::File;
use std::io::{self, BufRead, IsTerminal as _, Read};
use std::path::Path;

use command_line::{Console, ExitCode, Failure, FailureContext as _};

use crate::series::{Content, Series, SeriesError, is_series};

#[cfg(test)]
mod tests;

/// The most bytes that are read of a series: each code may be scanned several times.
const TEXT_MAX: u64 = 1024 * 1024;

/// Reads a file of `max` bytes at the most, or the scanned lines of one; `-` is stdin.
pub fn read(path: &Path, content: Content, max: u64, console: &Console) -> Result<Vec<u8>, Failure> {
    if path != Path::new("-") {
        let file = File::open(path).or_fail(ExitCode::BadInput, || cannot_read(path))?;
        return read_whole(file, path, content, max);
    }
    let stdin = io::stdin().lock();
    if stdin.is_terminal() {
        return read_typed(stdin, path, content, max, |line| console.say(line));
    }
    read_whole(stdin, path, content, max)
}

fn read_whole(source: impl Read, path: &Path, content: Content, max: u64) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    source.take(TEXT_MAX.max(max) + 1).read_to_end(&mut text).or_fail(ExitCode::BadInput, || cannot_read(path))?;
    let is_series = is_series(&text);
    let most = if is_series { TEXT_MAX } else { max };
    if text.len() as u64 > most {
        return Err(Failure::bad_input(format!("`{}` has more than {most} bytes", path.display())));
    }
    if !is_series {
        return Ok(text);
    }
    join(&text, content, max).map_err(|error| failure(path, content, &error))
}

fn join(text: &[u8], content: Content, max: u64) -> Result<Vec<u8>, SeriesError> {
    let mut series = Series::new(content);
    // A scanner that types may end its lines with a carriage return alone.
    let end = if text.contains(&b'\n') { b'\n' } else { b'\r' };
    for line in text.split(|byte| *byte == end) {
        match series.add(line) {
            // Scanners see product codes in the noise of a large code: `zbarimg` in one picture of sixty.
            Ok(()) | Err(SeriesError::Other { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    series.join(max)
}

/// Reads what a scanner types into a terminal until no part is missing, and says after each line what is. The file itself cannot come
/// this way: a terminal takes no line of more than 4,095 bytes.
fn read_typed(
    source: impl BufRead,
    path: &Path,
    content: Content,
    max: u64,
    say: impl Fn(String),
) -> Result<Vec<u8>, Failure> {
    say(format!("scan the codes of {} into this terminal, each with a return after it", content.name()));
    let mut source = source.take(TEXT_MAX);
    let mut series = Series::new(content);
    let mut line = Vec::new();
    while source.read_until(b'\n', &mut line).or_fail(ExitCode::BadInput, || cannot_read(path))? > 0 {
        let added = series.add(&line);
        line.clear();
        if let Err(error) = added {
            say(format!("not taken: {error}; {}", hint(&error)));
            continue;
        }
        match series.join(max) {
            Err(error @ SeriesError::Missing { .. }) => say(error.to_string()),
            joined => return joined.map_err(|error| failure(path, content, &error)),
        }
    }
    series.join(max).map_err(|error| failure(path, content, &error))
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read `{}`", path.display())
}

fn failure(path: &Path, content: Content, error: &SeriesError) -> Failure {
    Failure::new(code(error), format!("the codes in `{}` do not make {}", path.display(), content.name()))
        .caused_by(error)
        .hint(hint(error))
}

fn code(error: &SeriesError) -> ExitCode {
    match error {
        SeriesError::Damaged { .. }
        | SeriesError::Differing { .. }
        | SeriesError::Compression(_)
        | SeriesError::Digest => ExitCode::VerificationFailed,
        _ => ExitCode::BadInput,
    }
}

fn hint(error: &SeriesError) -> &'static str {
    match error {
        SeriesError::Other { .. } => "only codes of this series are wanted",
        SeriesError::Form { .. } => {
            "scan that part again, whole; another version of this program may write other codes"
        }
        SeriesError::Damaged { .. } => {
            "scan that part again; a scanner that types has to be set to this machine's keyboard layout"
        }
        SeriesError::Missing { .. } => "scan what is missing, too; order and repetitions do not matter",
        SeriesError::Content { .. } => "the request goes to the vendor's desk, the answer to the guest that asked",
        SeriesError::Mixed { .. } => "scan the codes of one file only",
        _ => "scan all parts again, or carry the file itself",
    }
}
