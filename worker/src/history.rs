//! What the log knows of a job.

use std::sync::Arc;

use async_trait::async_trait;
use imagewright_common::event::What;
use imagewright_common::job::{Message, id_time};
use imagewright_common::queue::{Log, QueueError, Until};
use imagewright_common::store::retention::{History, Known};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;
use uuid::Uuid;

use std::collections::HashMap;

/// How far the log goes back.
const LOG_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);

/// One reading of the log; made when first asked, for one step.
pub(crate) struct LogHistory {
    log: Arc<dyn Log>,
    jobs: OnceCell<HashMap<String, Known>>,
}

impl LogHistory {
    pub(crate) fn new(log: Arc<dyn Log>) -> LogHistory {
        LogHistory { log, jobs: OnceCell::new() }
    }

    /// The first terminal event of the run of `message`; `since` is when the job can first have been heard of.
    pub(crate) async fn outcome(&self, message: &Message, since: Timestamp) -> Result<Option<What>, QueueError> {
        let since = id_time(message.id).unwrap_or(since).min(since);
        let mut reader = self.log.read(since, Until::Now).await?;
        let id = message.id.to_string();
        while let Some(event) = reader.next().await? {
            if event.id == id && event.run == message.run() && event.what.is_terminal() {
                return Ok(Some(event.what));
            }
        }
        Ok(None)
    }

    async fn read(&self) -> Result<HashMap<String, Known>, QueueError> {
        let since = Timestamp::now().saturating_sub(LOG_AGE).unwrap_or(Timestamp::MIN);
        let mut reader = self.log.read(since, Until::Now).await?;
        let mut jobs = HashMap::new();
        while let Some(event) = reader.next().await? {
            let known = if event.what.is_terminal() { Known::Ended } else { Known::LastHeard(event.at) };
            let entry = jobs.entry(event.id).or_insert((event.run, known));
            if event.run > entry.0 || entry.1 != Known::Ended {
                *entry = (event.run, known);
            }
        }
        Ok(jobs.into_iter().map(|(id, (_, known))| (id, known)).collect())
    }
}

#[async_trait]
impl History for LogHistory {
    async fn of(&self, job: Uuid) -> Known {
        let read = async || {
            self.read().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the log cannot be read; leftovers stay for now");
                HashMap::new()
            })
        };
        self.jobs.get_or_init(read).await.get(&job.to_string()).copied().unwrap_or(Known::Nothing)
    }
}
