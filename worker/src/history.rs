//! What the log knows of jobs, read when it is first asked for.

use std::sync::Arc;

use async_trait::async_trait;
use imagewright_common::queue::{Log, QueueError};
use imagewright_common::status::{Fold, JobStatus};
use imagewright_common::store::retention::{History, Known};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;
use uuid::Uuid;

/// How far the log goes back.
const LOG_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One reading of the log, for one step.
pub(crate) struct LogHistory {
    log: Arc<dyn Log>,
    jobs: OnceCell<Fold>,
}

impl LogHistory {
    pub(crate) fn new(log: Arc<dyn Log>) -> LogHistory {
        LogHistory { log, jobs: OnceCell::new() }
    }

    /// Where a job stands.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) async fn status(&self, job: Uuid) -> Result<JobStatus, QueueError> {
        Ok(self.jobs.get_or_try_init(|| self.read()).await?.get(&job.to_string()))
    }

    async fn read(&self) -> Result<Fold, QueueError> {
        let since = Timestamp::now().saturating_sub(LOG_AGE).unwrap_or(Timestamp::MIN);
        Fold::of_log(&*self.log, since).await
    }
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
