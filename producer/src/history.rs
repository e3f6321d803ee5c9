//! The log of transitions, read to its end.

use imagewright_common::event::Event;
use imagewright_common::job::id_time;
use imagewright_common::queue::{About, Backend, Until};
use imagewright_common::status::{Cut, Fold, oldest};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::exit::Failure;

/// What became of the jobs that the log tells of since then.
pub(crate) async fn since(backend: &Backend, since: Timestamp) -> Result<Fold, Failure> {
    Ok(Fold::of_log(&*backend.log, since).await?)
}

/// The same, but of a log that is slow to read only its newest entries.
pub(crate) async fn lately(backend: &Backend, since: Timestamp) -> Result<(Fold, Option<Cut>), Failure> {
    Ok(Fold::of_lately(&*backend.log, since).await?)
}

/// What became of some jobs, and which are their parents and children.
pub(crate) async fn of_jobs(backend: &Backend, ids: &[String], since: Timestamp) -> Result<Fold, Failure> {
    Ok(Fold::of_jobs(&*backend.log, ids, since).await?)
}

/// What became of every job that the log still knows.
pub(crate) async fn whole(backend: &Backend) -> Result<Fold, Failure> {
    since(backend, oldest(Timestamp::now())).await
}

/// Clocks differ a little: begin to read this long before a job was enqueued.
const SLACK: SignedDuration = SignedDuration::from_mins(1);

/// When a job was enqueued, as far as its own id tells, and a little before.
pub(crate) fn begin_of(id: &str, now: Timestamp) -> Option<Timestamp> {
    let told = Uuid::parse_str(id).ok().and_then(id_time).filter(|at| *at <= now)?;
    told.checked_sub(SLACK).ok()
}

/// Everything the log tells of one job; `first_seen` where the id does not tell its time.
pub(crate) async fn of_job(backend: &Backend, id: &str, first_seen: Option<Timestamp>) -> Result<Vec<Event>, Failure> {
    let now = Timestamp::now();
    let begin = begin_of(id, now).or_else(|| first_seen.and_then(|at| at.checked_sub(SLACK).ok()));
    let begin = begin.unwrap_or_else(|| oldest(now));
    let mut reader = backend.log.read_about(About::Jobs(vec![id.to_owned()]), begin, Until::Now).await?;
    let mut events = Vec::new();
    while let Some(event) = reader.next().await? {
        if event.id == id {
            events.push(event);
        }
    }
    Ok(events)
}
