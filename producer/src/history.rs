//! The log of transitions, read to its end.

use imagewright_common::queue::Backend;
use imagewright_common::status::Fold;
use jiff::{SignedDuration, Timestamp};

use crate::exit::Failure;

/// How long the log is kept by default.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What became of the jobs that the log tells of since then.
pub(crate) async fn since(backend: &Backend, since: Timestamp) -> Result<Fold, Failure> {
    Ok(Fold::of_log(&*backend.log, since).await?)
}

/// What became of every job that the log still knows.
pub(crate) async fn whole(backend: &Backend) -> Result<Fold, Failure> {
    since(backend, Timestamp::now().checked_sub(KEPT).unwrap_or(Timestamp::UNIX_EPOCH)).await
}
