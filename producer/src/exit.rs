//! How the program ends: the exit codes, and failures that carry one.

use std::fmt;
use std::process::ExitCode;

use imagewright_common::openstack::{CloudError, CloudErrorKind};
use imagewright_common::queue::QueueError;
use imagewright_common::store::StoreError;

/// What the exit code says to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All went well.
    Ok = 0,
    /// A job that was waited for failed.
    JobFailed = 1,
    /// The command line or the configuration is wrong; the same command will not work later either.
    Usage = 64,
    /// The log does not know the job.
    UnknownJob = 66,
    /// The queue or a cloud does not answer; try again later.
    Unreachable = 69,
    /// A defect of this program.
    Internal = 70,
    /// Ctrl-C.
    Interrupted = 130,
}

/// One line for a human, with what to do next, and the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) text: String,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::JobFailed => 1,
            Exit::Usage => 64,
            Exit::UnknownJob => 66,
            Exit::Unreachable => 69,
            Exit::Internal => 70,
            Exit::Interrupted => 130,
        })
    }
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure { exit: Exit::Usage, text: text.into() }
    }

    pub(crate) fn unreachable(text: impl Into<String>) -> Failure {
        Failure { exit: Exit::Unreachable, text: text.into() }
    }

    pub(crate) fn internal(text: impl Into<String>) -> Failure {
        Failure { exit: Exit::Internal, text: text.into() }
    }

    /// The same with more to say.
    #[must_use]
    pub(crate) fn and(mut self, more: &str) -> Failure {
        self.text.push_str("; ");
        self.text.push_str(more);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Refused credentials are configuration; silence is not.
impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Failure {
        let exit = match &error {
            QueueError::Unavailable(_) | QueueError::Unknown(_) | QueueError::Returned(_) => Exit::Unreachable,
            QueueError::Refused(_) => Exit::Usage,
            QueueError::Stale => Exit::Internal,
        };
        Failure { exit, text: error.to_string() }
    }
}

impl From<CloudError> for Failure {
    fn from(error: CloudError) -> Failure {
        let exit = match error.kind {
            CloudErrorKind::Config
            | CloudErrorKind::Credentials
            | CloudErrorKind::Forbidden
            | CloudErrorKind::Rejected => Exit::Usage,
            CloudErrorKind::Unreachable
            | CloudErrorKind::Server
            | CloudErrorKind::Busy
            | CloudErrorKind::NotFound
            | CloudErrorKind::Gone
            | CloudErrorKind::Conflict
            | CloudErrorKind::Protocol => Exit::Unreachable,
        };
        Failure { exit, text: format!("cannot {error}") }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            StoreError::Config(error) | StoreError::SourceCloud(error) => Failure::usage(error.to_string()),
            StoreError::Cloud(error) => error.into(),
            StoreError::Source(error) => Failure::usage(error.to_string()),
            StoreError::Rejected { .. } => Failure::usage(error.to_string()),
            StoreError::Transient(text) => Failure::unreachable(text),
        }
    }
}
