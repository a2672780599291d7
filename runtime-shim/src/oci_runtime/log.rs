//! What a failure of ours looks like to an engine: the words on stderr and in the runtime's log, in the form that runc has, from
//! which podman, CRI-O, Docker and containerd take what they show.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use command_line::Failure;
use serde_json::json;

use super::arguments::Call;

/// Reports the failure where the call wants it.
pub(super) fn report(call: &Call, failure: &Failure) {
    let text = one_line(failure);
    // A stderr that is gone has nobody to tell.
    let _ = writeln!(io::stderr(), "{text}");
    if let Some(file) = &call.log
        && let Err(error) = append(file, call.is_log_json, &text)
    {
        let _ = writeln!(io::stderr(), "sealift: cannot write to the log `{}`: {error}", file.display());
    }
}

/// Engines show one line.
fn one_line(failure: &Failure) -> String {
    let parts = std::iter::once(&failure.message).chain(&failure.causes).cloned().collect::<Vec<_>>().join(": ");
    let text = match &failure.hint {
        Some(hint) => format!("sealift: {parts} (hint: {hint})"),
        None => format!("sealift: {parts}"),
    };
    text.replace(['\n', '\r'], " ")
}

fn append(file: &Path, is_json: bool, text: &str) -> io::Result<()> {
    let time = jiff::Timestamp::now();
    let line = if is_json {
        json!({"level": "error", "msg": text, "time": time.to_string()}).to_string()
    } else {
        format!("time={:?} level=error msg={text:?}", time.to_string())
    };
    writeln!(OpenOptions::new().create(true).append(true).open(file)?, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_the_reason_in_the_form_that_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let failure = Failure::denied("the service denies the release").cause("licence lic-1 is\nrevoked").hint("ask");
        for format in ["json", "text"] {
            let words = ["--log", log.to_str().unwrap(), "--log-format", format, "create", "abc"];
            report(&Call::parse(words.iter().map(Into::into).collect()), &failure);
        }
        let text = std::fs::read_to_string(log).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let expected = "sealift: the service denies the release: licence lic-1 is revoked (hint: ask)";
        let first: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!((&first["level"], &first["msg"]), (&"error".into(), &expected.into()));
        assert!(lines[1].ends_with(&format!("level=error msg={expected:?}")), "{}", lines[1]);
    }
}
