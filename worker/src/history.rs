//! What the log knows of jobs, read when it is first asked for.

use std::sync::Arc;

use async_trait::async_trait;
use imagewright_common::job::id_time;
use imagewright_common::queue::{Log, QueueError};
use imagewright_common::status::{Fold, JobStatus, oldest};
use imagewright_common::store::retention::{History, Known};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// Whoever made a job's id may have a clock that is wrong by so much.
const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// One reading of the log, for one step.
pub(crate) struct LogHistory {
    log: Arc<dyn Log>,
    jobs: OnceCell<Fold>,
}

impl LogHistory {
    pub(crate) fn new(log: Arc<dyn Log>) -> LogHistory {
        LogHistory { log, jobs: OnceCell::new() }
    }

    async fn read(&self) -> Result<Fold, QueueError> {
        Fold::of_log(&*self.log, oldest(Timestamp::now())).await
    }
}

/// Where one job stands. No more of the log is read than can be about it.
///
/// # Errors
/// The log cannot be read.
pub(crate) async fn status(log: &dyn Log, job: Uuid) -> Result<JobStatus, QueueError> {
    let (id, now) = (job.to_string(), Timestamp::now());
    let since = id_time(job).map_or_else(|| oldest(now), |at| at.min(now).saturating_sub(SKEW).unwrap_or(at));
    Ok(Fold::of_jobs(log, std::slice::from_ref(&id), since).await?.get(&id))
}

#[async_trait]
impl History for LogHistory {
    async fn of(&self, job: Uuid) -> Known {
        match self.jobs.get_or_try_init(|| self.read()).await {
            Ok(fold) => fold.of(job).await,
            Err(error) => {
                tracing::warn!(%error, "the log cannot be read; leftovers stay for now");
                Known::Nothing
            }
        }
    }
}
