//! The command lines of runc and crun, as far as they must be understood: where the command stands, and what is created.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use command_line::Failure;

/// Options before the command that have a value; those of runc 1.1 to 1.3 and crun 1.8 to 1.21.
const GLOBAL_VALUES: [&str; 9] =
    ["agent", "cgroup-manager", "criu", "inner", "log", "log-format", "log-level", "root", "rootless"];

/// Options of `create`, `run` and `restore` that have a value.
const CREATE_VALUES: [&str; 15] = [
    "b",
    "bundle",
    "config",
    "console-socket",
    "empty-ns",
    "f",
    "image-path",
    "lsm-mount-context",
    "lsm-profile",
    "manage-cgroups-mode",
    "page-server",
    "parent-path",
    "pid-file",
    "pidfd-socket",
    "preserve-fds",
];

/// One call of an OCI runtime.
#[derive(Debug)]
pub(super) struct Call {
    /// `--inner`
    pub(super) inner: Option<PathBuf>,
    /// `--agent`
    pub(super) agent: Option<PathBuf>,
    /// The words that are the runtime's.
    pub(super) words: Vec<OsString>,
    /// `--log`
    pub(super) log: Option<PathBuf>,
    /// `--log-format json`
    pub(super) is_log_json: bool,
    /// `--root`
    root: Option<String>,
    /// The options before the command that hold for every call: none of the log's.
    lasting: Vec<String>,
    command: Option<String>,
    /// What stands after the command.
    rest: Vec<OsString>,
}

/// A container that is to be created.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Creation {
    pub(super) id: String,
    pub(super) bundle: PathBuf,
    /// crun's `--config`.
    pub(super) config: Option<PathBuf>,
    pub(super) pid_file: Option<PathBuf>,
    pub(super) mode: Mode,
}

/// Whether the runtime's process stays with the container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Attached,
    Detached,
}

impl Call {
    /// Reads the words; those that are not known go to the runtime as they are.
    pub(super) fn parse(words: Vec<OsString>) -> Self {
        let from_environment = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let mut call = Self {
            inner: from_environment("SEALIFT_INNER_RUNTIME"),
            agent: from_environment("SEALIFT_AGENT"),
            words: Vec::new(),
            log: None,
            is_log_json: false,
            root: None,
            lasting: Vec::new(),
            command: None,
            rest: Vec::new(),
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(option) = Word::option(&word, &GLOBAL_VALUES) else {
                call.command = Some(word.to_string_lossy().into_owned());
                call.words.push(word);
                call.rest = words.collect();
                call.words.extend(call.rest.iter().cloned());
                break;
            };
            let separate = if option.wants_next { words.next() } else { None };
            let value = option.value.or_else(|| separate.clone());
            call.note(&option.name, value.as_deref(), [Some(word), separate].into_iter().flatten());
        }
        call
    }

    fn note(&mut self, name: &str, value: Option<&OsStr>, words: impl Iterator<Item = OsString>) {
        let path = || value.map(PathBuf::from);
        match name {
            "agent" => return self.agent = path(),
            "inner" => return self.inner = path(),
            "log" => self.log = path(),
            "log-format" => self.is_log_json = value.is_some_and(|value| value == "json"),
            "root" => self.root = value.map(|value| value.to_string_lossy().into_owned()),
            _ => {}
        }
        let words: Vec<OsString> = words.collect();
        if !matches!(name, "debug" | "log" | "log-format" | "log-level") {
            self.lasting.extend(words.iter().map(|word| word.to_string_lossy().into_owned()));
        }
        self.words.extend(words);
    }

    /// What the call creates; `None` when it is another command.
    pub(super) fn creation(&self) -> Result<Option<Creation>, Failure> {
        let Some(command @ ("create" | "run" | "restore")) = self.command.as_deref() else { return Ok(None) };
        let mut is_detached = command == "create";
        let (mut bundle, mut config, mut pid_file, mut id) = (PathBuf::from("."), None, None, None);
        let mut words = self.rest.iter();
        while let Some(word) = words.next() {
            let Some(option) = Word::option(word, &CREATE_VALUES) else {
                id = id.or_else(|| word.to_str().map(ToOwned::to_owned));
                continue;
            };
            let value = if option.wants_next { words.next().cloned() } else { option.value };
            match option.name.as_str() {
                "b" | "bundle" => bundle = value.map_or(bundle, PathBuf::from),
                "config" | "f" => config = value.map(PathBuf::from),
                "d" | "detach" => is_detached = true,
                "pid-file" => pid_file = value.map(PathBuf::from),
                "help" | "h" => return Ok(None),
                _ => {}
            }
        }
        let id = id.ok_or_else(|| Failure::usage(format!("`{command}` names no container")))?;
        let mode = if is_detached { Mode::Detached } else { Mode::Attached };
        Ok(Some(Creation { id, bundle, config, pid_file, mode }))
    }

    /// The runtime's state directory.
    pub(super) fn root(&self, inner: &Path) -> String {
        self.root.clone().unwrap_or_else(|| {
            let name = inner.file_name().unwrap_or_default().to_string_lossy();
            format!("/run/{name}")
        })
    }

    /// The program and the words before a command on the same containers.
    pub(super) fn runtime_words(&self, inner: &Path) -> Vec<String> {
        [inner.display().to_string()].into_iter().chain(self.lasting.iter().cloned()).collect()
    }
}

/// A word that is an option.
struct Word {
    name: String,
    value: Option<OsString>,
    /// Whether its value is the next word.
    wants_next: bool,
}

impl Word {
    /// `--name`, `--name=value`, `-n`; those in `with_value` have a value.
    fn option(word: &OsStr, with_value: &[&str]) -> Option<Self> {
        let bytes = word.as_bytes();
        // Go's flags are the same with one dash or two.
        let text = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-"))?;
        if text.is_empty() {
            return None;
        }
        let (name, value) = match text.iter().position(|byte| *byte == b'=') {
            Some(place) => (&text[..place], Some(OsString::from_vec(text[place + 1..].to_vec()))),
            None => (text, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let wants_next = value.is_none() && with_value.contains(&name.as_str());
        Some(Self { name, value, wants_next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> Call {
        Call::parse(line.split_whitespace().map(OsString::from).collect())
    }

    #[test]
    fn the_creation_is_found_in_the_command_lines_of_engines() {
        // conmon for podman, containerd's shim, CRI-O with crun.
        for (line, id, bundle, pid_file, mode) in [
            (
                "--log-format=json --log /l --runtime-x create --bundle /b --pid-file /p --no-pivot abc",
                "abc",
                "/b",
                Some("/p"),
                Mode::Detached,
            ),
            (
                "--root /run/containerd/runc/k8s.io --log /l --log-format json --systemd-cgroup create --bundle /b \
                 --pid-file /p --console-socket /c abc",
                "abc",
                "/b",
                Some("/p"),
                Mode::Detached,
            ),
            ("--cgroup-manager systemd run -d -b /b abc", "abc", "/b", None, Mode::Detached),
            ("run abc", "abc", ".", None, Mode::Attached),
            ("restore --image-path /i --bundle=/b abc", "abc", "/b", None, Mode::Attached),
            ("create --preserve-fds 3 --pid-file=/p abc", "abc", ".", Some("/p"), Mode::Detached),
        ] {
            let creation = call(line).creation().unwrap().unwrap();
            let pid_file = pid_file.map(PathBuf::from);
            let (id, bundle) = (id.to_owned(), PathBuf::from(bundle));
            assert_eq!(creation, Creation { id, bundle, config: None, pid_file, mode }, "{line}");
        }
    }

    #[test]
    fn other_commands_create_nothing_and_go_on_as_they_are() {
        for line in
            ["--root /r state create", "--version", "", "features", "--log create exec abc run", "kill --all run KILL"]
        {
            let call = call(line);
            assert_eq!(call.creation().unwrap(), None, "{line}");
            let words: Vec<_> = call.words.iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(words.join(" "), line);
        }
        assert!(call("create --bundle /b").creation().is_err());
    }

    #[test]
    fn own_options_do_not_reach_the_runtime_and_the_logs_do_not_last() {
        let call = call("--inner=/usr/bin/crun --agent /a --root /r --log /l --log-format json --debug kill abc");
        assert_eq!((call.inner, call.agent), (Some("/usr/bin/crun".into()), Some("/a".into())));
        assert_eq!((call.log, call.is_log_json), (Some("/l".into()), true));
        let words: Vec<_> = call.words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words.join(" "), "--root /r --log /l --log-format json --debug kill abc");
        assert_eq!(call.lasting.join(" "), "--root /r");
    }
}
