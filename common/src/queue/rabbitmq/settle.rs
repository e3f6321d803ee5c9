//! Settling jobs. Whatever changes a job publishes its successor, confirmed, before the old message is acknowledged: a
//! crash between the two leaves two copies, never none.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use lapin::Acker;
use lapin::message::Delivery as Message;
use lapin::options::BasicAckOptions;

use super::envelope;
use super::link::rpc;
use super::pool::{Pool, Subscription, close_later};
use super::publisher::{Publisher, To};
use super::topology::{LONGEST_RUNG, Names, close, key, short};
use crate::queue::{Counts, Delivery, QueueError, Receipt, Tap, Verdict};

/// What one consumer takes jobs with.
pub(super) struct Taking {
    pub(super) settler: Settler,
    pub(super) pool: Pool,
    pub(super) from: Tap,
}

impl Taking {
    pub(super) fn delivery(self: &Arc<Self>, message: Message, subscription: Subscription) -> Delivery {
        let named = envelope::message_id(&message.properties);
        let receipt = RabbitReceipt {
            taking: self.clone(),
            subscription: Some(subscription),
            acker: Some(message.acker),
            id: named.unwrap_or_else(|| crate::status::message_id(&message.data)),
        };
        let counts = envelope::counts(&message.properties);
        Delivery { counts, from: self.from, receipt: Box::new(receipt), payload: message.data }
    }

    /// Give up a subscription that waits. What had been sent to it meanwhile is handed back.
    pub(super) async fn retire(self: Arc<Self>, mut subscription: Subscription) -> Result<(), QueueError> {
        if let Some(message) = subscription.end().await {
            let ahead = self.delivery(message, subscription);
            return match ahead.settle(Verdict::Release { after: Duration::ZERO }).await {
                Ok(()) | Err(QueueError::Stale) => Ok(()),
                Err(error) => Err(error),
            };
        }
        close(&subscription.channel).await;
        Ok(())
    }

    /// The same in a task of its own, for those who may be cancelled.
    pub(super) fn retire_later(self: Arc<Self>, subscription: Subscription) {
        tokio::spawn(async move {
            if let Err(error) = self.retire(subscription).await {
                tracing::debug!(%error, "what was sent ahead goes back with its channel");
            }
        });
    }
}

struct RabbitReceipt {
    taking: Arc<Taking>,
    /// Where the job came; taken once it is settled.
    subscription: Option<Subscription>,
    /// Taken once the delivery is acknowledged.
    acker: Option<Acker>,
    id: String,
}

#[async_trait]
impl Receipt for RabbitReceipt {
    async fn settle(
        mut self: Box<Self>,
        payload: Vec<u8>,
        counts: &Counts,
        verdict: Verdict,
    ) -> Result<(), QueueError> {
        if !self.acker.as_ref().is_some_and(Acker::usable) {
            return Err(QueueError::Stale);
        }
        self.taking.settler.successor(&self.id, self.taking.from, payload, counts, verdict).await?;
        if self.taking.pool.is_closed()
            && let Some(subscription) = &mut self.subscription
            && let Err(error) = subscription.cancel().await
        {
            tracing::debug!(%error, "the subscription is gone already");
        }
        let Some(acker) = self.acker.take() else { return Err(QueueError::Stale) };
        if !matches!(rpc("basic.ack", acker.ack(BasicAckOptions::default())).await, Ok(true)) {
            return Err(QueueError::Stale);
        }
        if let Some(subscription) = self.subscription.take()
            && let Some(last) = self.taking.pool.put(subscription)
        {
            self.taking.clone().retire_later(last);
        }
        Ok(())
    }
}

/// What was not settled goes back at once.
impl Drop for RabbitReceipt {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscription.take() {
            close_later(subscription.channel.clone());
        }
    }
}

pub(super) struct Settler {
    names: Arc<Names>,
    publisher: Arc<Publisher>,
}

impl Settler {
    pub(super) fn new(names: Arc<Names>, publisher: Arc<Publisher>) -> Settler {
        Settler { names, publisher }
    }

    /// Publish what the job becomes, if it goes on.
    async fn successor(
        &self,
        id: &str,
        from: Tap,
        payload: Vec<u8>,
        counts: &Counts,
        verdict: Verdict,
    ) -> Result<(), QueueError> {
        match verdict {
            Verdict::Done => Ok(()),
            Verdict::Continue { payload, after } => {
                let fresh = Counts { first_at: counts.first_at, ..Counts::default() };
                self.later(id, started(from), &payload, &fresh, after).await
            }
            Verdict::Retry { after, error } => {
                let counts =
                    Counts { attempt: counts.attempt.saturating_add(1), last_error: Some(error), ..counts.clone() };
                self.later(id, started(from), &payload, &counts, after).await
            }
            Verdict::Defer { after } => self.later(id, from, &payload, counts, after).await,
            Verdict::Release { after } if after.is_zero() => self.later(id, from, &payload, counts, after).await,
            Verdict::Release { after } => self.later(id, started(from), &payload, counts, after).await,
            Verdict::Move { to } => self.later(id, to, &payload, counts, Duration::ZERO).await,
            Verdict::Bury(burial) => {
                let properties = envelope::with_burial(envelope::properties(id, counts), &burial);
                self.publisher.publish(&To::queue(self.names.dead()), &payload, &properties).await
            }
        }
    }

    async fn later(
        &self,
        id: &str,
        tap: Tap,
        payload: &[u8],
        counts: &Counts,
        after: Duration,
    ) -> Result<(), QueueError> {
        let properties = envelope::properties(id, counts);
        let (to, properties) = match tap {
            Tap::Lost => (To::queue(self.names.lost()), properties),
            Tap::New(_) | Tap::Started(_) if after.is_zero() => {
                (To { exchange: self.names.jobs(), key: short(&key(tap)) }, properties)
            }
            Tap::New(_) | Tap::Started(_) => {
                let to = To { exchange: self.names.rung(after), key: short(&key(tap)) };
                // By the broker's clock alone, unless no rung is long enough: ours and those of others may differ.
                let properties = if after > LONGEST_RUNG {
                    let due = Timestamp::now().saturating_add(after).unwrap_or(Timestamp::MAX);
                    envelope::with_due(properties, due)
                } else {
                    properties
                };
                (to, properties)
            }
        };
        self.publisher.publish(&to, payload, &properties).await
    }
}

/// Where a job comes back to once it has begun.
fn started(tap: Tap) -> Tap {
    match tap {
        Tap::New(lane) | Tap::Started(lane) => Tap::Started(lane),
        Tap::Lost => Tap::Lost,
    }
}
