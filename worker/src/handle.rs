//! One delivery, from bytes to the work it asks for: what it may not ask, what has become of it meanwhile, whether there
//! is room.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imagewright_common::backoff::jitter;
use imagewright_common::event::What;
use imagewright_common::job::{CloudName, Lane, Message, Source, Spec, UploadSpec};
use imagewright_common::queue::{Burial, Counts, Delivery, Queue, QueueError, Tap, Verdict};
use imagewright_common::store::upload::Look;
use imagewright_common::wire::{self, DecodeError};
use jiff::Timestamp;
use tokio::sync::{RwLock, RwLockWriteGuard, watch};
use tokio::time::timeout;
use uuid::Uuid;

use crate::cancel::Cancelled;
use crate::conclude::OWED_AGAIN;
use crate::future;
use crate::journal::Journal;
use crate::ledger::Detached;
use crate::limits;
use crate::metrics::Metrics;
use crate::steps::{self, Tools};
use crate::verdict::{self, CRASHES_ALONE, CRASHES_ALONE_MAX, later};

/// When a job whose step goes on without it comes back to look.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// A step that nothing but the log tells of is lost when it was not heard of for this long.
const SILENCE: Duration = Duration::from_secs(45);

/// How often a job that must run alone looks for a worker that has nothing else to do, before jitter, and how long it
/// then waits for the short work of that one; others wait as long for it. Less than a delivery is held.
const ALONE_WAIT: Duration = Duration::from_secs(5);
const ALONE_PATIENCE: Duration = Duration::from_secs(10);

/// The field that is named where a job's time is over.
const DEADLINE: &str = "deadline";

/// What handling a delivery needs.
pub(crate) struct Desk {
    pub(crate) tools: Arc<Tools>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) journal: Journal,
    pub(crate) metrics: Arc<Metrics>,
    /// Held for writing by a job that runs alone.
    pub(crate) alone: RwLock<()>,
    /// Jobs whose steps go on here without their messages.
    pub(crate) detached: Mutex<HashSet<Uuid>>,
    /// True once running work must be handed back.
    pub(crate) hand_back: watch::Receiver<bool>,
}

/// What follows from how a step stands that went on without its message.
enum Resolved {
    /// It is over, and the job goes on.
    GoOn,
    /// Again after this long; counts as nothing.
    Later(Duration),
    /// The job has ended.
    Settle(Verdict),
}

impl Desk {
    /// Handle one delivery. Errors of the queue are not ours to repeat: whatever was not settled comes back.
    pub(crate) async fn handle(self: Arc<Self>, delivery: Delivery) {
        match self.settle(delivery).await {
            Ok(()) => {}
            Err(QueueError::Stale) => tracing::debug!("the job was already given to another worker"),
            Err(error) => tracing::warn!(%error, "the job is left to come back"),
        }
    }

    async fn settle(self: &Arc<Self>, mut delivery: Delivery) -> Result<(), QueueError> {
        let now = Timestamp::now();
        let mut message = match wire::decode(&delivery.payload, now) {
            Ok(message) => message,
            Err(error) => return self.bury_unreadable(delivery, error).await,
        };
        if cfg!(feature = "future-progress") {
            delivery.payload = future::marked(&message, delivery.payload);
        }
        if let Some(lane) = wrong_lane(&message, delivery.from) {
            tracing::info!(job.id = %message.id, %lane, "found on another lane; moving it");
            let was_lost = delivery.counts.crashes > 0;
            let to = if was_lost { Tap::Started(lane) } else { Tap::New(lane) };
            return delivery.settle(Verdict::Move { to }).await;
        }
        if let Err(refusal) = limits::check(&message, &self.tools.policy()) {
            return self.bury(delivery, &message, refusal.field, refusal.reason).await;
        }
        let first_seen = delivery.counts.first_at.unwrap_or(now);
        message.asked_at = Some(message.asked_at(first_seen));
        message.deadline = Some(message.deadline(first_seen));
        let mut may_cancel = true;
        if self.tools.ledger.is_wanted(&message) {
            match self.cancel(&message, is_untouched(&delivery)).await? {
                Cancelled::Done => return delivery.settle(Verdict::Done).await,
                Cancelled::Later { after, why } => return self.put_off(delivery, &message, after, why).await,
                Cancelled::TooLate => may_cancel = false,
            }
        }
        if delivery.counts.detached {
            match self.resolve(&mut delivery.counts, &message).await {
                Resolved::GoOn => {}
                Resolved::Later(after) => return delivery.settle(Verdict::Release { after }).await,
                Resolved::Settle(verdict) => return delivery.settle(verdict).await,
            }
        }
        self.metrics.came(&message, delivery.counts.crashes);
        let alone_before = self.tools.ledger.starts_alone(&message);
        if let Some(refusal) = given_up(&message, alone_before, now) {
            if refusal.field == DEADLINE
                && let Some(why) = self.owed(&message, now).await
            {
                return self.put_off(delivery, &message, OWED_AGAIN, why).await;
            }
            self.bury(delivery, &message, refusal.field, refusal.reason).await?;
            // Last, for whatever it is that crashes workers.
            steps::abandon(&self.tools, &message).await;
            return Ok(());
        }
        if let Some((after, why)) = self.no_room(&message, delivery.from) {
            let (until, attempt, why) = (later(now, after), delivery.counts.attempt, why.to_owned());
            self.journal.say(&message, What::Waiting { until, why, attempt, detached: false }).await?;
            return delivery.settle(Verdict::Defer { after }).await;
        }
        if delivery.counts.crashes >= CRASHES_ALONE {
            let Some(_alone) = self.place_alone().await else {
                let why = "workers were lost that had it in hand, and it waits for one that has nothing else to do";
                return self.put_off(delivery, &message, jitter(ALONE_WAIT), why.to_owned()).await;
            };
            return self.work(delivery, message, may_cancel, true).await;
        }
        let Ok(_together) = timeout(ALONE_PATIENCE, self.alone.read()).await else {
            return delivery.settle(Verdict::Defer { after: jitter(ALONE_WAIT) }).await;
        };
        self.work(delivery, message, may_cancel, false).await
    }

    /// The process to itself. Short work that runs is waited for, with nothing new begun meanwhile; work that goes on
    /// without its message may take hours.
    async fn place_alone(&self) -> Option<RwLockWriteGuard<'_, ()>> {
        if self.has_any_detached() {
            return None;
        }
        timeout(ALONE_PATIENCE, self.alone.write()).await.ok()
    }

    /// How long a job stays away from a cloud, and why. For a cloud that is busy only new uploads do: work that was begun is
    /// let in to look.
    fn no_room(&self, message: &Message, from: Tap) -> Option<(Duration, &'static str)> {
        let room = &self.tools.room;
        if let Some(after) = clouds(&message.spec).find_map(|cloud| room.is_away(cloud)) {
            return Some((after, "its cloud does not answer; one job at a time looks whether it does again"));
        }
        let is_new = matches!(from, Tap::New(_)) && message.spec.kind().is_transfer();
        let full = if is_new { room.is_full(message.spec.cloud()) } else { None };
        full.map(|after| (after, "every transfer that this worker may have with the cloud is taken"))
    }

    /// Find out about a step that went on without its message: from the log where whoever had it said how it ended, else
    /// from the world. Only a worker that went without a word is counted as a crash.
    async fn resolve(&self, counts: &mut Counts, message: &Message) -> Resolved {
        match self.tools.ledger.detached(message) {
            Detached::Ended(what) => return Resolved::Settle(ended(what, self.journal.by())),
            Detached::Failed { attempt, until, error } => {
                (counts.attempt, counts.last_error) = (attempt, Some(error));
                counts.detached = false;
                counts.crashes = 0;
                let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
                return if left.is_zero() { Resolved::GoOn } else { Resolved::Later(left) };
            }
            Detached::HandedBack => counts.crashes = 0,
            Detached::Unheard => {}
            Detached::GoesOn(_) if self.has_detached(message.id) => return Resolved::Later(LOOK_AGAIN),
            Detached::GoesOn(heard) => match steps::look(&self.tools, message).await {
                Ok(Look::GoesOn) => return Resolved::Later(LOOK_AGAIN),
                Ok(Look::Unknown) if heard.elapsed() < SILENCE => return Resolved::Later(LOOK_AGAIN),
                Ok(Look::Over | Look::Unknown) => {
                    tracing::warn!(job.id = %message.id, "the worker that had it is gone");
                    counts.crashes = counts.crashes.saturating_add(1);
                    counts.last_error = Some("the worker that had it is gone".to_owned());
                }
                Err(failure) => {
                    tracing::info!(job.id = %message.id, error = failure.error, "cannot look how far it is");
                    return Resolved::Later(LOOK_AGAIN);
                }
            },
        }
        counts.detached = false;
        Resolved::GoOn
    }

    /// Back to the queue for a while; counts as nothing.
    pub(crate) async fn put_off(
        &self,
        delivery: Delivery,
        message: &Message,
        after: Duration,
        why: String,
    ) -> Result<(), QueueError> {
        let (until, attempt) = (later(Timestamp::now(), after), delivery.counts.attempt);
        self.journal.say(message, What::Waiting { until, why, attempt, detached: false }).await?;
        delivery.settle(Verdict::Release { after }).await
    }
}

/// Why nothing more is done for the job, if so.
fn given_up(message: &Message, starts_alone: u32, now: Timestamp) -> Option<DecodeError> {
    let refuse = |field: &str, reason| Some(DecodeError { field: field.to_owned(), reason });
    let deadline = message.deadline(now);
    if now >= deadline {
        return refuse(DEADLINE, verdict::past_deadline(deadline));
    }
    if starts_alone >= CRASHES_ALONE_MAX {
        return refuse("message", format!("it crashes workers: {starts_alone} of them died while it ran alone"));
    }
    None
}

/// What becomes of a message whose job has ended without it.
fn ended(what: What, worker: &str) -> Verdict {
    match what {
        What::Failed { error, field, request_id, .. } => {
            Verdict::Bury(Burial { reason: error, field, error: None, request_id, worker: Some(worker.to_owned()) })
        }
        What::Queued
        | What::Started { .. }
        | What::Waiting { .. }
        | What::Retrying { .. }
        | What::Succeeded { .. }
        | What::CancelRequested
        | What::Cancelled
        | What::Warning { .. }
        | What::Output { .. }
        | What::Progress { .. } => Verdict::Done,
    }
}

/// The clouds that its steps ask.
pub(crate) fn clouds(spec: &Spec) -> impl Iterator<Item = &CloudName> {
    let source = match spec {
        Spec::Upload(UploadSpec { source: Source::Image(image), .. }) => Some(&image.cloud),
        Spec::Upload(_) | Spec::Prune(_) | Spec::Snapshot(_) | Spec::Build(_) | Spec::BaseImage(_) => None,
    };
    source.into_iter().chain([spec.cloud()])
}

/// Whether no worker has ever begun with this message.
fn is_untouched(delivery: &Delivery) -> bool {
    let Counts { attempt, crashes, detached, .. } = delivery.counts;
    matches!(delivery.from, Tap::New(_)) && attempt == 0 && crashes == 0 && !detached
}

/// The lane that a job found elsewhere belongs on.
fn wrong_lane(message: &Message, from: Tap) -> Option<Lane> {
    let right = message.spec.lane();
    match from {
        Tap::New(lane) | Tap::Started(lane) => (lane != right).then_some(right),
        Tap::Lost => Some(right),
    }
}
