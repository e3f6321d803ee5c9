//! One delivery, from bytes to settled. Only here do jobs, steps, events and the queue meet.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use imagewright_common::event::{Event, What};
use imagewright_common::job::{Lane, Message};
use imagewright_common::queue::{Burial, Counts, Delivery, Queue, QueueError, Tap, Verdict};
use imagewright_common::status::message_id;
use imagewright_common::store::Observer;
use imagewright_common::wire::{self, DecodeError};
use jiff::Timestamp;
use tokio::sync::{RwLock, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::journal::Journal;
use crate::limits;
use crate::steps::{self, Tools};
use crate::verdict::{self, CRASHES_ALONE, CRASHES_MAX, Decision, Ended};

/// Longest that a delivery is held while a step works. A longer step goes on without it, as something that the cloud is
/// doing; the job itself comes back to look.
const HOLD: Duration = Duration::from_secs(20);

/// When a job that was handed over comes back to look.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// How often a job that must run alone looks for a worker that has nothing else to do.
const ALONE_WAIT: Duration = Duration::from_secs(5);

/// Time between reports of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// What handling a delivery needs.
pub(crate) struct Desk {
    pub(crate) tools: Arc<Tools>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) journal: Journal,
    /// Held for writing by a job that runs alone.
    pub(crate) alone: RwLock<()>,
    /// True once running work must be handed back.
    pub(crate) hand_back: watch::Receiver<bool>,
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

    async fn settle(self: &Arc<Self>, delivery: Delivery) -> Result<(), QueueError> {
        let now = Timestamp::now();
        let mut message = match wire::decode(&delivery.payload, now) {
            Ok(message) => message,
            Err(error) => return self.bury_unreadable(delivery, error).await,
        };
        if let Some(lane) = wrong_lane(&message, delivery.from) {
            tracing::info!(job.id = %message.id, %lane, "found on another lane; moving it");
            self.queue.publish(lane, &message.id.to_string(), &delivery.payload).await?;
            return delivery.settle(Verdict::Done).await;
        }
        if let Err(refusal) = limits::check(&message, &self.tools.policy()) {
            return self.bury(delivery, &message, refusal.field, refusal.reason).await;
        }
        let first_seen = delivery.counts.first_at.unwrap_or(now);
        message.asked_at = Some(message.asked_at(first_seen));
        message.deadline = Some(message.deadline(first_seen));
        if now >= message.deadline(first_seen) {
            let reason = verdict::past_deadline(message.deadline(first_seen));
            steps::abandon(&self.tools, &message).await;
            return self.bury(delivery, &message, "deadline".to_owned(), reason).await;
        }
        if delivery.counts.crashes >= CRASHES_MAX {
            let reason = format!("it crashes workers: {} of them died with it", delivery.counts.crashes);
            steps::abandon(&self.tools, &message).await;
            return self.bury(delivery, &message, "message".to_owned(), reason).await;
        }
        if delivery.counts.crashes >= CRASHES_ALONE {
            let Ok(_alone) = self.alone.try_write() else {
                let until = now.saturating_add(ALONE_WAIT).unwrap_or(now);
                let why = "it crashed workers, and waits for one that has nothing else to do".to_owned();
                self.journal.say(&message, What::Waiting { until, why, attempt: delivery.counts.attempt }).await?;
                return delivery.settle(Verdict::Release { after: ALONE_WAIT }).await;
            };
            return self.work(delivery, message).await;
        }
        let _together = self.alone.read().await;
        self.work(delivery, message).await
    }

    /// Run one step, and hand the job over if it takes long.
    async fn work(self: &Arc<Self>, delivery: Delivery, message: Message) -> Result<(), QueueError> {
        let message = Arc::new(message);
        let counts = delivery.counts.clone();
        if matches!(delivery.from, Tap::New(_)) {
            self.journal.say(&message, What::Started { attempt: counts.attempt }).await?;
        }
        let observer = Arc::new(Observer::default());
        let mut step = Step(tokio::spawn({
            let (tools, message, observer) = (self.tools.clone(), message.clone(), observer.clone());
            async move { steps::advance(&tools, &message, &observer).await }
        }));
        let _progress =
            Step(tokio::spawn(self.clone().report(message.clone(), observer, counts.attempt, delivery.from)));
        let mut hand_back = self.hand_back.clone();
        tokio::select! {
            ended = &mut step.0 => return self.conclude(Some(delivery), &message, &counts, ended).await,
            () = sleep(HOLD) => {}
            () = told(&mut hand_back) => {
                drop(step);
                return delivery.settle(Verdict::Release { after: Duration::ZERO }).await;
            }
        }
        let desk = self.clone();
        let (job, handed) = (message.clone(), counts.clone());
        let handing_over = tokio::spawn(async move { desk.hand_over(delivery, &job, &handed).await });
        tokio::select! {
            ended = &mut step.0 => {
                if let Ok(Err(error)) = handing_over.await {
                    tracing::debug!(%error, "handing over did not succeed; the job comes back");
                }
                self.conclude(None, &message, &counts, ended).await
            }
            () = told(&mut hand_back) => Ok(()),
        }
    }

    /// Put the job on the ladder, where it counts as failed until somebody finds that it is not.
    async fn hand_over(&self, delivery: Delivery, message: &Message, counts: &Counts) -> Result<(), QueueError> {
        let why = "the transfer goes on".to_owned();
        let until = Timestamp::now().saturating_add(LOOK_AGAIN).unwrap_or(Timestamp::MAX);
        self.journal.say(message, What::Waiting { until, why: why.clone(), attempt: counts.attempt }).await?;
        delivery.settle(Verdict::Retry { after: LOOK_AGAIN, error: "the worker that sent it is gone".to_owned() }).await
    }

    /// Say how a step ended, and settle what is still in hand: children first, then the event, then the delivery.
    async fn conclude(
        &self,
        delivery: Option<Delivery>,
        message: &Message,
        counts: &Counts,
        ended: Result<Ended, tokio::task::JoinError>,
    ) -> Result<(), QueueError> {
        let now = Timestamp::now();
        let ended = ended.unwrap_or_else(|panic| {
            tracing::error!(job.id = %message.id, %panic, "a step panicked");
            let error = "internal error in the worker; see its log".to_owned();
            Ended::Failed(verdict::Failure { sort: verdict::Sort::Transient { after: None }, error, request_id: None })
        });
        if let Ended::Succeeded { children, .. } = &ended {
            for child in children {
                self.enqueue(child).await?;
            }
        }
        let handed_over = delivery.is_none();
        let kind = message.spec.kind();
        let decision = verdict::decide(kind, counts, message.deadline(now), ended, self.journal.by(), now);
        let attempts = decision.attempts();
        let Decision { say, verdict } = decision;
        if matches!(verdict, Verdict::Bury(_)) {
            steps::abandon(&self.tools, message).await;
        }
        if let Some(what) = say
            && !(handed_over && matches!(what, What::Waiting { .. }))
        {
            self.journal.say(message, what).await?;
        }
        match delivery {
            Some(mut delivery) => {
                delivery.counts.attempt = attempts.unwrap_or(delivery.counts.attempt);
                delivery.settle(verdict).await
            }
            None => Ok(()),
        }
    }

    async fn enqueue(&self, child: &Message) -> Result<(), QueueError> {
        let payload = wire::encode(child).map_err(|error| QueueError::Refused(error.to_string()))?;
        self.queue.publish(child.spec.lane(), &child.id.to_string(), &payload).await?;
        self.journal.say(child, What::Queued).await
    }

    async fn bury(
        &self,
        delivery: Delivery,
        message: &Message,
        field: String,
        reason: String,
    ) -> Result<(), QueueError> {
        let attempt = delivery.counts.attempt;
        self.journal
            .say(message, What::Failed { error: reason.clone(), field: Some(field.clone()), attempt, request_id: None })
            .await?;
        delivery.settle(Verdict::Bury(self.burial(field, reason))).await
    }

    pub(crate) async fn bury_unreadable(&self, delivery: Delivery, error: DecodeError) -> Result<(), QueueError> {
        let glimpse = wire::glimpse(&delivery.payload);
        let id = message_id(&delivery.payload);
        let DecodeError { field, reason } = error;
        let what = What::Failed {
            error: reason.clone(),
            field: Some(field.clone()),
            attempt: delivery.counts.attempt,
            request_id: None,
        };
        self.journal.say_event(Event::of_unreadable(&glimpse, id, self.journal.by(), what)).await?;
        delivery.settle(Verdict::Bury(self.burial(field, reason))).await
    }

    fn burial(&self, field: String, reason: String) -> Burial {
        let worker = Some(self.journal.by().to_owned());
        Burial { reason: format!("{field}: {reason}"), field: Some(field), error: None, request_id: None, worker }
    }

    /// Tell how far a transfer is, and once, that it runs at all.
    async fn report(self: Arc<Self>, message: Arc<Message>, observer: Arc<Observer>, attempt: u32, from: Tap) {
        let mut ticks = interval(PROGRESS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut before, mut said) = (0, matches!(from, Tap::New(_)));
        loop {
            ticks.tick().await;
            let (bytes, total) = observer.progress();
            if total == 0 {
                continue;
            }
            if !said {
                said = self.journal.say(&message, What::Started { attempt }).await.is_ok();
            }
            let rate = bytes.saturating_sub(before) / PROGRESS.as_secs();
            before = bytes;
            self.journal.announce(&message, What::Progress { bytes, total, rate }).await;
        }
    }
}

/// A task that ends with whoever waits for it.
struct Step<T>(JoinHandle<T>);

impl<T> Drop for Step<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn told(hand_back: &mut watch::Receiver<bool>) {
    if hand_back.wait_for(|now| *now).await.is_err() {
        pending::<()>().await;
    }
}

/// The lane that a job found elsewhere belongs on.
fn wrong_lane(message: &Message, from: Tap) -> Option<Lane> {
    let right = message.spec.lane();
    match from {
        Tap::New(lane) | Tap::Started(lane) => (lane != right).then_some(right),
        Tap::Lost => Some(right),
    }
}
