//! The fold of a log, read to its end, and as retention asks it.

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{Fold, State};
use crate::queue::{About, Lately, Log, QueueError, Until};
use crate::store::retention::{History, Known};

/// How long both queues keep the log.
const LOG_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The beginning of the log.
pub fn oldest(now: Timestamp) -> Timestamp {
    now.saturating_sub(LOG_AGE).unwrap_or(Timestamp::MIN)
}

/// Where a fold of the newest entries begins.
pub struct Cut {
    /// Entries looked at, at most.
    pub entries: u32,
    /// When the oldest of them was said.
    pub oldest: Option<Timestamp>,
}

impl Fold {
    /// What `log` tells from `since` to its end as it is now.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn of_log(log: &dyn Log, since: Timestamp) -> Result<Fold, QueueError> {
        let mut fold = Fold::default();
        let mut reader = log.read(since, Until::Now).await?;
        while let Some(event) = reader.next().await? {
            fold.apply(&event);
        }
        Ok(fold)
    }

    /// The same, but of a log that is slow to read only its newest entries.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn of_lately(log: &dyn Log, since: Timestamp) -> Result<(Fold, Option<Cut>), QueueError> {
        let mut fold = Fold::default();
        let Lately { mut reader, newest_only } = log.read_lately(since).await?;
        let mut oldest = None;
        while let Some(event) = reader.next().await? {
            oldest.get_or_insert(event.at);
            fold.apply(&event);
        }
        Ok((fold, newest_only.map(|entries| Cut { entries, oldest })))
    }

    /// What `log` tells of some jobs, their parents and their children, from `since` to its end; not farther than to where
    /// all of them have succeeded, for nothing comes after that. Of parents and children, not all need be told.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn of_jobs(log: &dyn Log, ids: &[String], since: Timestamp) -> Result<Fold, QueueError> {
        let mut fold = Fold::default();
        let mut reader = log.read_about(About::Jobs(ids.to_vec()), since, Until::Now).await?;
        while let Some(event) = reader.next().await? {
            fold.apply(&event);
            if event.what.is_terminal() && ids.iter().all(|id| fold.state(id) == State::Succeeded) {
                break;
            }
        }
        Ok(fold)
    }
}

#[async_trait]
impl History for Fold {
    async fn of(&self, job: Uuid) -> Known {
        let status = self.get(&job.to_string());
        match (status.state, status.updated_at) {
            (State::Succeeded | State::Failed | State::Cancelled, _) => Known::Ended,
            (State::Queued | State::Running | State::Waiting | State::Unknown, Some(at)) => Known::LastHeard(at),
            (State::Queued | State::Running | State::Waiting | State::Unknown, None) => Known::Nothing,
        }
    }
}
