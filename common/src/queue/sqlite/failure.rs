//! What SQLite reports, in words that say what to do next.

use std::path::Path;

use rusqlite::{Error, ErrorCode};

use crate::queue::QueueError;

/// Passes by itself or when somebody makes room.
const PASSING: [(ErrorCode, &str); 4] = [
    (ErrorCode::DatabaseBusy, "another program keeps it locked; find it with `fuser` and end it"),
    (ErrorCode::DatabaseLocked, "another program keeps it locked; find it with `fuser` and end it"),
    (ErrorCode::DiskFull, "the disk is full; free some space on it"),
    (ErrorCode::SystemIoFailure, DISK_ERROR),
];

/// Stays until somebody repairs it.
const LASTING: [(ErrorCode, &str); 6] = [
    (ErrorCode::ReadOnly, READ_ONLY),
    (ErrorCode::CannotOpen, "it cannot be opened; this user needs read and write permission on it and its directory"),
    (ErrorCode::PermissionDenied, READ_ONLY),
    (ErrorCode::NotADatabase, "it is not a SQLite database; move it away, or name another file"),
    (ErrorCode::DatabaseCorrupt, DAMAGED),
    (ErrorCode::FileLockingProtocolFailed, "its file system has no working locks; keep it on a local disk"),
];

/// What to do about a file that can only be read.
pub(super) const READ_ONLY: &str = "it cannot be written; this user needs write permission on it and its directory";

const DISK_ERROR: &str = "the disk reports an error; look at the kernel's log, at quotas and at its free space";

const DAMAGED: &str = "it is damaged; stop every program that uses it, keep a copy, and try `sqlite3 FILE .recover`, or \
                       move it away and enqueue again";

/// Whether trying again shortly may help.
pub(super) fn is_busy(error: &Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// An error before the commit: nothing happened.
pub(super) fn explain(path: &Path, error: &Error) -> QueueError {
    let advice = |table: &[(ErrorCode, &'static str)]| {
        let code = error.sqlite_error_code()?;
        table.iter().find(|(of, _)| *of == code).map(|(_, advice)| *advice)
    };
    if let Some(advice) = advice(&PASSING) {
        QueueError::Unavailable(tell(path, advice, error))
    } else if let Some(advice) = advice(&LASTING) {
        QueueError::Refused(tell(path, advice, error))
    } else {
        QueueError::Refused(tell(path, "this should not happen; please report it", error))
    }
}

/// An error of the commit itself. When the disk failed to say that it is safe, the next start may find it done.
pub(super) fn explain_commit(path: &Path, error: &Error) -> QueueError {
    if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
        QueueError::Unknown(tell(path, DISK_ERROR, error))
    } else {
        explain(path, error)
    }
}

fn tell(path: &Path, advice: &str, error: &Error) -> String {
    format!("{}: {advice} ({error})", path.display())
}

/// The same error once more, for each of those that wait for one answer.
pub(super) fn again(error: &QueueError) -> QueueError {
    match error {
        QueueError::Unavailable(text) => QueueError::Unavailable(text.clone()),
        QueueError::Unknown(text) => QueueError::Unknown(text.clone()),
        QueueError::Refused(text) => QueueError::Refused(text.clone()),
        QueueError::Returned(text) => QueueError::Returned(text.clone()),
        QueueError::Stale => QueueError::Stale,
    }
}
