//! Cancelling: what a job has made is taken back on the cloud, and only then is it said to be cancelled. A job whose image
//! is there already ends well instead.

use std::sync::Arc;
use std::time::Duration;

use imagewright_common::arch::Arch;
use imagewright_common::backoff::jitter;
use imagewright_common::event::{Event, What};
use imagewright_common::job::{CloudName, Kind, Lane, Message};
use imagewright_common::queue::QueueError;
use imagewright_common::store::stamp::Stamp;
use imagewright_common::store::withdraw::{self, Withdrawn};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::handle::Desk;
use crate::steps;
use crate::verdict::{Failure, Sort};

/// When to try again what the cloud did not let happen.
const AGAIN: Duration = Duration::from_secs(5);

/// Whoever has the job in hand is faster than this; and of several workers one.
const HEED_AFTER: Duration = Duration::from_secs(1);

/// A job that waits for longer than this is in nobody's hands.
const SURELY_WAITS: SignedDuration = SignedDuration::from_secs(5);

/// What came of trying to cancel a job.
pub(crate) enum Cancelled {
    /// It has ended.
    Done,
    /// Not yet.
    Later { after: Duration, why: String },
    /// Its image is there: it will end well.
    TooLate,
}

impl Desk {
    /// Cancel a job whose message or step is in hand; `untouched` if none was ever begun.
    pub(crate) async fn cancel(&self, message: &Message, untouched: bool) -> Result<Cancelled, QueueError> {
        if self.tools.ledger.has_ended(message.id) {
            return Ok(Cancelled::Done);
        }
        match steps::withdraw(&self.tools, message).await {
            Ok(Withdrawn::Gone) => {}
            Ok(Withdrawn::TooLate) => return Ok(Cancelled::TooLate),
            Ok(Withdrawn::Contended) => {
                let why = "to be cancelled; other workers are still at it".to_owned();
                return Ok(Cancelled::Later { after: AGAIN, why });
            }
            Err(Failure { sort: Sort::Rejected { .. } | Sort::UnknownCloud { .. }, .. }) => {}
            Err(failure) if untouched => {
                tracing::info!(error = failure.error, "nothing was begun, nothing is taken back")
            }
            Err(Failure { sort: Sort::Transient { after } | Sort::Busy { after }, error, .. }) => {
                let why = format!("to be cancelled; what it made cannot be removed yet: {error}");
                return Ok(Cancelled::Later { after: after.unwrap_or_else(|| jitter(AGAIN)), why });
            }
        }
        self.journal.say(message, What::Cancelled).await?;
        Ok(Cancelled::Done)
    }

    /// Cancel jobs that nobody has in hand, as they are asked for. Their messages come by later, and are done with. Each
    /// is one of `tasks`: broken off half-way it would leave its own mark on the cloud.
    pub(crate) async fn heed(
        self: Arc<Self>,
        mut requests: mpsc::UnboundedReceiver<Event>,
        lanes: Vec<Lane>,
        tasks: TaskTracker,
    ) {
        while let Some(request) = requests.recv().await {
            if lanes.iter().any(|lane| serves(*lane, &request)) {
                let desk = self.clone();
                tasks.spawn(async move {
                    sleep(jitter(HEED_AFTER)).await;
                    if let Err(error) = desk.cancel_waiting(&request).await {
                        tracing::warn!(job.id = request.id, %error, "left to be cancelled when it comes by");
                    }
                });
            }
        }
    }

    async fn cancel_waiting(&self, request: &Event) -> anyhow::Result<()> {
        let job = Uuid::parse_str(&request.id)?;
        if self.tools.ledger.has_ended(job) || self.has_detached(job) {
            return Ok(());
        }
        let is_over = match request.kind.as_deref().map(str::parse::<Kind>) {
            Some(Ok(kind @ (Kind::Upload | Kind::BaseImage))) => {
                self.withdraw_upload(job, kind, request).await? == Withdrawn::Gone
            }
            Some(Ok(Kind::Prune)) => {
                let surely = Timestamp::now().saturating_add(SURELY_WAITS)?;
                self.tools.ledger.waits_until(job).is_some_and(|until| until > surely)
            }
            // What these have made, their message tells, which comes by within seconds.
            Some(Ok(Kind::Snapshot | Kind::Build) | Err(_)) | None => false,
        };
        if is_over {
            let (at, by) = (Timestamp::now(), self.journal.by().to_owned());
            self.journal.say_event(Event { at, by, what: What::Cancelled, ..request.clone() }).await?;
        }
        Ok(())
    }

    async fn withdraw_upload(&self, job: Uuid, kind: Kind, request: &Event) -> anyhow::Result<Withdrawn> {
        let Event { name: Some(name), cloud: Some(cloud), arch: Some(arch), .. } = request else {
            anyhow::bail!("the request does not say where its image is");
        };
        let (name, cloud, arch) = (name.parse()?, cloud.parse::<CloudName>()?, arch.parse::<Arch>()?);
        let stamp = Stamp { job, kind, asked_at: request.at, namespace: self.tools.namespace.clone(), arch };
        let glance = self.tools.pool.glance(&cloud).await?;
        Ok(withdraw::withdraw(&glance, &stamp, &name, &cloud, request.run).await?)
    }
}

fn serves(lane: Lane, request: &Event) -> bool {
    let is_kind = request.kind.as_deref() == Some(lane.kind.as_str());
    is_kind && lane.arch.is_none_or(|arch| request.arch.as_deref() == Some(arch.as_str()))
}
