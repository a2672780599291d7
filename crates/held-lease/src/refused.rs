//! What becomes of a conversation that failed: given up, or tried again.

use command_line::{ExitCode, Failure};

/// What went wrong in a conversation with the service.
#[derive(Debug)]
pub enum Refused {
    /// The service answered and said no, or its answer cannot be believed. Trying again does not help.
    Final(Failure),
    /// The service was out of reach or too busy.
    Unavailable(Failure),
}

impl Refused {
    /// The command's failure.
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Final(failure) | Self::Unavailable(failure) => failure,
        }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        match failure.code {
            ExitCode::Unavailable => Self::Unavailable(failure),
            _ => Self::Final(failure),
        }
    }
}
