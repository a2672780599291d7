//! The one error type of command lines: what happened, whose answer it was, and the next step.

use std::error::Error;
use std::fmt;

use serde_json::{Value, json};

/// Exit codes of both programs. `sealift-shim run` adds [`ExitCode::RUN_OFFSET`] to its own failures, so that the
/// workload's own codes pass through below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// The command did what it was asked.
    Done = 0,
    /// A failure with no code of its own.
    Other = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// A file, image or policy that was given is malformed.
    BadInput = 3,
    /// A signature, digest, HMAC or evidence did not verify.
    VerificationFailed = 4,
    /// Policy or licence said no.
    Denied = 5,
    /// Network, registry or service cannot be reached; worth retrying.
    Unavailable = 6,
    /// The lease ended while the workload ran.
    LeaseLost = 7,
}

impl ExitCode {
    /// What `sealift-shim run` adds to its own failures.
    pub const RUN_OFFSET: u8 = 120;

    /// The stable machine name that JSON errors carry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Other => "failed",
            Self::Usage => "usage",
            Self::BadInput => "bad_input",
            Self::VerificationFailed => "verification_failed",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::LeaseLost => "lease_lost",
        }
    }

    /// The code with this machine name.
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [ExitCode; 8] = [
            ExitCode::Done,
            ExitCode::Other,
            ExitCode::Usage,
            ExitCode::BadInput,
            ExitCode::VerificationFailed,
            ExitCode::Denied,
            ExitCode::Unavailable,
            ExitCode::LeaseLost,
        ];
        ALL.into_iter().find(|code| code.name() == name)
    }
}

/// Whose answer an error was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answerer {
    /// The command that runs.
    Command,
    /// The store of the service's master key.
    KeyStore,
    /// An image registry.
    Registry,
    /// The vendor's attestation service.
    Service,
    /// The OCI runtime that starts the workload.
    Runtime,
}

impl Answerer {
    /// The word that JSON errors carry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::KeyStore => "key store",
            Self::Registry => "registry",
            Self::Service => "service",
            Self::Runtime => "runtime",
        }
    }

    /// The answerer with this word.
    pub fn from_name(name: &str) -> Option<Self> {
        const ALL: [Answerer; 5] =
            [Answerer::Command, Answerer::KeyStore, Answerer::Registry, Answerer::Service, Answerer::Runtime];
        ALL.into_iter().find(|answerer| answerer.name() == name)
    }
}

/// A command's failure: exit code, one-line message, its causes, and a hint that ends in an action.
#[derive(Debug)]
pub struct Failure {
    /// The process's exit code.
    pub code: ExitCode,
    /// Whose answer it was.
    pub answerer: Answerer,
    /// One line: what was tried on which object.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
    /// The chain below the message, outermost first.
    pub causes: Vec<String>,
}

impl Failure {
    /// A failure of this command with `code`.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, answerer: Answerer::Command, message: message.into(), hint: None, causes: Vec::new() }
    }

    /// The command line itself is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// A file, image or policy that was given is malformed.
    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new(ExitCode::BadInput, message)
    }

    /// Something did not verify.
    pub fn verification(message: impl Into<String>) -> Self {
        Self::new(ExitCode::VerificationFailed, message)
    }

    /// Policy or licence said no.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Denied, message)
    }

    /// Worth retrying.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Unavailable, message)
    }

    /// A failure with no code of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Other, message)
    }

    /// Says whose answer it was.
    #[must_use]
    pub fn from_answerer(mut self, answerer: Answerer) -> Self {
        self.answerer = answerer;
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds one cause below those there are.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds `error` and everything below it as causes.
    #[must_use]
    pub fn caused_by(mut self, error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// The JSON form: `{"error": {"code", "answerer", "message", "hint", "causes"}}`.
    pub fn to_json(&self) -> Value {
        json!({"error": {
            "code": self.code.name(),
            "answerer": self.answerer.name(),
            "message": self.message,
            "hint": self.hint,
            "causes": self.causes,
        }})
    }

    /// Reads the JSON form, which another of our processes wrote; `None` when it is none.
    pub fn from_json(value: &Value) -> Option<Self> {
        let error = value.get("error")?;
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let causes = error.get("causes")?.as_array()?.iter().map(|cause| cause.as_str().map(ToOwned::to_owned));
        Some(Self {
            code: ExitCode::from_name(text("code")?)?,
            answerer: Answerer::from_name(text("answerer")?)?,
            message: text("message")?.to_owned(),
            hint: text("hint").map(ToOwned::to_owned),
            causes: causes.collect::<Option<_>>()?,
        })
    }
}

/// The form for people: `error:`, `caused by:` lines, a blank line, `hint:`.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for cause in &self.causes {
            write!(f, "\n  caused by: {cause}")?;
        }
        match self.answerer {
            Answerer::Command => {}
            other => write!(f, "\n  answered by: the {}", other.name())?,
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl Error for Failure {}

/// Turns a library's result into a [`Failure`] with context.
pub trait FailureContext<T> {
    /// Wraps the error as causes under `message`, with exit code `code`.
    fn or_fail(self, code: ExitCode, message: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Error + 'static> FailureContext<T> for Result<T, E> {
    fn or_fail(self, code: ExitCode, message: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, message()).caused_by(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_has_causes_and_a_hint_after_a_blank_line() {
        let failure = Failure::bad_input("cannot read the recipient key `vendor.pub`")
            .cause("permission denied")
            .hint("create one with `sealift init`");
        assert_eq!(
            failure.to_string(),
            "error: cannot read the recipient key `vendor.pub`\n  caused by: permission denied\n\nhint: create one with `sealift init`"
        );
    }

    #[test]
    fn json_form_is_one_object() {
        let value = Failure::denied("no").from_answerer(Answerer::Service).to_json();
        assert_eq!(value["error"]["code"], "denied");
        assert_eq!(value["error"]["answerer"], "service");
        assert_eq!(value["error"]["causes"], json!([]));
    }

    #[test]
    fn the_json_form_reads_back_as_it_was() {
        for failure in [
            Failure::unavailable("away").cause("first").cause("second").hint("wait").from_answerer(Answerer::Registry),
            Failure::new(ExitCode::LeaseLost, "gone"),
        ] {
            let read = Failure::from_json(&failure.to_json()).unwrap();
            assert_eq!(
                (read.code, read.answerer, read.to_string()),
                (failure.code, failure.answerer, failure.to_string())
            );
        }
        let mut other = Failure::other("x").to_json();
        other["error"]["code"] = "unheard-of".into();
        assert!(Failure::from_json(&other).is_none());
    }
}
