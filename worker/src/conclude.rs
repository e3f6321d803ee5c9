//! How a job goes on or ends: children first, then the event, then the delivery.

use imagewright_common::event::{Event, What};
use imagewright_common::job::Message;
use imagewright_common::queue::{Burial, Delivery, QueueError, Verdict};
use imagewright_common::status::message_id;
use imagewright_common::wire::{self, DecodeError};
use jiff::Timestamp;
use tokio::task::JoinError;

use crate::handle::Desk;
use crate::steps;
use crate::verdict::{self, Decision, Ended, Failure, Sort};
use crate::work::Job;

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
        let Decision { say, verdict } = decision;
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
