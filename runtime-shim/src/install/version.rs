//! Versions of container engines, as they say them.

use std::fmt;
use std::process::Command;
use std::str::FromStr;

use command_line::{ExitCode, Failure, FailureContext as _};

/// Major, minor and patch number; ordered as versions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) [u32; 3]);

impl Version {
    /// Asks a program.
    pub(super) fn of(program: &str) -> Result<Self, Failure> {
        let cannot = || format!("cannot ask `{program}` for its version");
        let hint = "say it by `--engine-version`";
        let output = Command::new(program)
            .arg("--version")
            .output()
            .or_fail(ExitCode::Other, cannot)
            .map_err(|failure| failure.hint(hint))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Self::find(&text).ok_or_else(|| Failure::other(cannot()).cause(format!("it says {text:?}")).hint(hint))
    }

    /// The first word that is one: `containerd github.com/containerd/containerd 1.7.24~ds1 …`, `podman version 5.4.2`.
    fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| word.parse().ok())
    }
}

impl FromStr for Version {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let number = |part: Option<&str>| part?.parse().ok();
        let digits = text.strip_prefix('v').unwrap_or(text);
        let end = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
        let mut parts = digits.get(..end).unwrap_or_default().split('.');
        let version =
            [number(parts.next()), number(parts.next()), parts.next().map_or(Some(0), |part| number(Some(part)))];
        match (version, parts.next()) {
            ([Some(major), Some(minor), Some(patch)], None) => Ok(Self([major, minor, patch])),
            _ => Err(Failure::usage(format!("`{text}` is no version, such as 1.7.24"))),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_versions_are_found_in_what_they_say() {
        for (text, version) in [
            ("containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6+deb13u1", [1, 7, 24]),
            ("containerd github.com/containerd/containerd/v2 v2.3.4 a1b2c3", [2, 3, 4]),
            ("containerd containerd.io v2.4.0-beta.0 0123abc", [2, 4, 0]),
            ("podman version 5.4.2\n", [5, 4, 2]),
            ("crio version 1.31.0\nVersion: 1.31.0", [1, 31, 0]),
            ("podman version 5.4", [5, 4, 0]),
        ] {
            assert_eq!(Version::find(text), Some(Version(version)), "{text}");
        }
        for text in ["", "podman", "podman version 5", "podman version .5.4", "1.2.3.4", "1..2"] {
            assert_eq!(Version::find(text), None, "{text}");
        }
    }
}
