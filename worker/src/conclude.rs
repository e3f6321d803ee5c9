//! How a job goes on or ends: children first, then the event, then the delivery.

use std::time::Duration;

use imagewright_common::event::{Event, What};
use imagewright_common::job::Message;
use imagewright_common::queue::{Burial, Counts, Delivery, QueueError, Verdict};
use imagewright_common::status::message_id;
use imagewright_common::store::upload;
use imagewright_common::wire::{self, DecodeError};
use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinError;

use crate::handle::{Desk, clouds};
use crate::steps;
use crate::verdict::{self, Decision, Ended, Failure, Sort, later};
use crate::work::Job;

/// A step that took longer to find out that a cloud does not answer keeps others from their turn.
const SLOW: Duration = Duration::from_secs(3);

/// For what is to be put right: the time between tries, and how long after its deadline a job is kept for it.
pub(crate) const OWED_AGAIN: Duration = Duration::from_secs(15);
const OWED_MAX: SignedDuration = SignedDuration::from_hours(24);

impl Desk {
    /// Say how a step ended, and settle what is still in hand.
    pub(crate) async fn conclude(
        &self,
        delivery: Option<Delivery>,
        job: &Job,
        ended: Result<Ended, JoinError>,
    ) -> Result<(), QueueError> {
        let (message, now) = (&*job.message, Timestamp::now());
        let mut ended = ended.unwrap_or_else(|panic| {
            tracing::error!(job.id = %message.id, %panic, "a step panicked");
            Ended::Failed(Failure::plain(Sort::Transient { after: None }, "internal error in the worker; see its log"))
        });
        if let Ended::Failed(failure) = &mut ended {
            failure.step = job.observer.step();
        }
        self.heed_silence(job, &ended);
        if let Ended::Succeeded { children, .. } | Ended::Next { children, .. } = &ended {
            for child in children {
                self.enqueue(child).await?;
            }
        }
        let kind = message.spec.kind();
        let failed = if let Ended::Failed(failure) = &ended { Some(failure.sort.clone()) } else { None };
        let has_failed = failed.is_some();
        let decision = verdict::decide(kind, &job.counts, message.deadline(now), ended, self.journal.by(), now);
        let attempts = decision.attempts();
        let is_bad = matches!(decision.verdict, Verdict::Bury(_));
        let Decision { say, verdict } =
            if is_bad { self.unless_owed(message, &job.counts, decision, now).await } else { decision };
        if let Some(sort) = failed.filter(|_| matches!(verdict, Verdict::Retry { .. } | Verdict::Release { .. })) {
            self.metrics.retried(kind, &sort);
        }
        if matches!(verdict, Verdict::Bury(_)) {
            steps::abandon(&self.tools, message).await;
        }
        if let Some(what) = say {
            self.journal.say(message, what).await?;
        }
        match delivery {
            Some(mut delivery) => {
                delivery.counts.attempt = attempts.unwrap_or(delivery.counts.attempt);
                if job.alone || has_failed {
                    // It ended, and the worker lives: its losses before were those of what ran beside it.
                    delivery.counts.crashes = 0;
                }
                delivery.settle(verdict).await
            }
            None => Ok(()),
        }
    }

    /// A cloud that takes its time not to answer is not asked for every job anew.
    fn heed_silence(&self, job: &Job, ended: &Ended) {
        match ended {
            // A transfer that broke says nothing of the cloud.
            Ended::Failed(Failure { silent: Some(_), step: Some(upload::SEND), .. }) => {}
            Ended::Failed(Failure { silent: Some(cloud), .. }) => {
                if job.begun.elapsed() > SLOW {
                    self.tools.room.is_silent(cloud);
                }
            }
            Ended::Succeeded { .. }
            | Ended::Wait { .. }
            | Ended::Next { .. }
            | Ended::TakenOver
            | Ended::Before(_)
            | Ended::Failed(_) => clouds(&job.message.spec).for_each(|cloud| self.tools.room.answers(cloud)),
        }
    }

    /// What ends a job badly, unless there is something to put right first.
    async fn unless_owed(&self, message: &Message, counts: &Counts, ending: Decision, now: Timestamp) -> Decision {
        match self.owed(message, now).await {
            None => ending,
            Some(why) => {
                let (until, attempt) = (later(now, OWED_AGAIN), counts.attempt);
                let say = What::Waiting { until, why, attempt, detached: false };
                Decision { say: Some(say), verdict: Verdict::Release { after: OWED_AGAIN } }
            }
        }
    }

    /// What has to be put right before the job may be said to have failed, for a day after its deadline at most.
    pub(crate) async fn owed(&self, message: &Message, now: Timestamp) -> Option<String> {
        if now.duration_since(message.deadline(now)) > OWED_MAX {
            return None;
        }
        let failure = steps::owed(&self.tools, message).await?;
        Some(format!("given up, and its server is to be started again first: {}", failure.error))
    }

    async fn enqueue(&self, child: &Message) -> Result<(), QueueError> {
        let payload = wire::encode(child).map_err(|error| QueueError::Refused(error.to_string()))?;
        self.queue.publish(child.spec.lane(), &child.id.to_string(), &payload).await?;
        self.journal.say(child, What::Queued).await
    }

    pub(crate) async fn bury(
        &self,
        delivery: Delivery,
        message: &Message,
        field: String,
        reason: String,
    ) -> Result<(), QueueError> {
        let what = failed(&delivery, &field, &reason);
        self.journal.say(message, what).await?;
        delivery.settle(Verdict::Bury(self.burial(field, reason))).await
    }

    pub(crate) async fn bury_unreadable(&self, delivery: Delivery, error: DecodeError) -> Result<(), QueueError> {
        let glimpse = wire::glimpse(&delivery.payload);
        let id = message_id(&delivery.payload);
        let DecodeError { field, reason } = error;
        let what = failed(&delivery, &field, &reason);
        self.journal.say_event(Event::of_unreadable(&glimpse, id, self.journal.by(), what)).await?;
        delivery.settle(Verdict::Bury(self.burial(field, reason))).await
    }

    fn burial(&self, field: String, reason: String) -> Burial {
        let worker = Some(self.journal.by().to_owned());
        Burial { reason: format!("{field}: {reason}"), field: Some(field), error: None, request_id: None, worker }
    }
}

fn failed(delivery: &Delivery, field: &str, reason: &str) -> What {
    What::Failed {
        error: reason.to_owned(),
        field: Some(field.to_owned()),
        attempt: delivery.counts.attempt,
        step: None,
        request_id: None,
    }
}
