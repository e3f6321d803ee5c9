//! Taking jobs, and settling them. Whatever changes a job publishes its successor, confirmed, before the old message is
//! acknowledged: a crash between the two leaves two copies, never none.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel};

use super::envelope;
use super::link::{Link, rpc};
use super::publisher::{Publisher, To};
use super::topology::{Names, close, key, short};
use crate::job::Lane;
use crate::queue::{Consumer, Counts, Delivery, Queue, QueueError, Receipt, Tap, Verdict};

/// A due time this close is now: rungs and clocks are not exact.
const DUE_SLACK: Duration = Duration::from_secs(1);

/// How long a dropped delivery waits for its consumer to go too.
const DROP_DELAY: Duration = Duration::from_millis(500);

pub(super) struct RabbitQueue {
    names: Arc<Names>,
    publisher: Arc<Publisher>,
    link: Arc<Link>,
}

impl RabbitQueue {
    pub(super) fn new(names: Arc<Names>, publisher: Arc<Publisher>, link: Arc<Link>) -> RabbitQueue {
        RabbitQueue { names, publisher, link }
    }
}

#[async_trait]
impl Queue for RabbitQueue {
    async fn publish(&self, lane: Lane, id: &str, payload: &[u8]) -> Result<(), QueueError> {
        let to = To { exchange: self.names.jobs(), key: short(&key(Tap::New(lane))) };
        let counts = Counts { first_at: Some(Timestamp::now()), ..Counts::default() };
        self.publisher.publish(&to, payload, &envelope::properties(id, &counts)).await
    }

    async fn consume(&self, from: Tap, in_flight: u16) -> Result<Box<dyn Consumer>, QueueError> {
        let desk = Arc::new(Settler { names: self.names.clone(), publisher: self.publisher.clone() });
        let mut consumer =
            RabbitConsumer { link: self.link.clone(), settler: desk, from, in_flight, subscription: None };
        consumer.subscribe().await?;
        Ok(Box::new(consumer))
    }
}

struct RabbitConsumer {
    link: Arc<Link>,
    settler: Arc<Settler>,
    from: Tap,
    in_flight: u16,
    subscription: Option<Subscription>,
}

struct Subscription {
    channel: Arc<Channel>,
    tag: ShortString,
    messages: lapin::Consumer,
}

impl RabbitConsumer {
    async fn subscribe(&mut self) -> Result<(), QueueError> {
        if self.subscription.is_none() {
            let queue = self.settler.names.queue(self.from);
            let subscription = self.link.patiently(|| subscription(&self.link, queue.clone(), self.in_flight)).await?;
            self.subscription = Some(subscription);
        }
        Ok(())
    }

    fn delivery(&self, message: Message, channel: &Arc<Channel>) -> Delivery {
        Delivery {
            counts: envelope::counts(&message.properties),
            from: self.from,
            receipt: Box::new(RabbitReceipt {
                settler: self.settler.clone(),
                acker: Some(message.acker),
                channel: channel.clone(),
                id: envelope::message_id(&message.properties)
                    .unwrap_or_else(|| crate::status::message_id(&message.data)),
                from: self.from,
            }),
            payload: message.data,
        }
    }
}

async fn subscription(link: &Link, queue: ShortString, in_flight: u16) -> Result<Subscription, QueueError> {
    let channel = link.channel().await?;
    rpc("basic.qos", channel.basic_qos(in_flight, BasicQosOptions::default())).await?;
    let tag = short(&format!("imagewright-{}", fastrand::u64(..)));
    let options = BasicConsumeOptions::default();
    let messages =
        rpc("basic.consume", channel.basic_consume(queue, tag.clone(), options, FieldTable::default())).await?;
    Ok(Subscription { channel: Arc::new(channel), tag, messages })
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        loop {
            self.subscribe().await?;
            let Some(subscription) = self.subscription.as_mut() else { continue };
            let message = match subscription.messages.next().await {
                Some(Ok(message)) => message,
                Some(Err(error)) => {
                    tracing::warn!(queue = %self.settler.names.queue(self.from), %error, "subscription broke; subscribing again");
                    self.subscription = None;
                    continue;
                }
                None => {
                    tracing::warn!(queue = %self.settler.names.queue(self.from), "subscription was cancelled by the broker; subscribing again");
                    self.subscription = None;
                    tokio::time::sleep(crate::backoff::jitter(Duration::from_secs(1))).await;
                    continue;
                }
            };
            let early = envelope::due(&message.properties).and_then(remaining);
            let channel = subscription.channel.clone();
            let delivery = self.delivery(message, &channel);
            match early {
                None => return Ok(delivery),
                // In a task of its own: this call may be cancelled, and the job must not hang on it.
                Some(after) => drop(tokio::spawn(delivery.settle(Verdict::Release { after }))),
            }
        }
    }

    async fn stop(&mut self) -> Result<(), QueueError> {
        let Some(mut subscription) = self.subscription.take() else { return Ok(()) };
        if let Err(error) =
            rpc("basic.cancel", subscription.channel.basic_cancel(subscription.tag, BasicCancelOptions::default()))
                .await
        {
            tracing::debug!(%error, "the broker has given back what was sent ahead");
            return Ok(());
        }
        while let Some(Ok(message)) = subscription.messages.next().await {
            ignore_stale(
                self.delivery(message, &subscription.channel).settle(Verdict::Release { after: Duration::ZERO }).await,
            )?;
        }
        Ok(())
    }
}

/// Without a stop, what is in hand goes back at once, counted as a crash.
impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        if let Some(subscription) = self.subscription.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { close(&subscription.channel).await });
        }
    }
}

/// How long until `due`, if that is worth another wait.
fn remaining(due: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(due.duration_since(Timestamp::now())).ok()?;
    (left > DUE_SLACK).then_some(left)
}

fn ignore_stale(result: Result<(), QueueError>) -> Result<(), QueueError> {
    match result {
        Ok(()) | Err(QueueError::Stale) => Ok(()),
        Err(error) => Err(error),
    }
}

struct Settler {
    names: Arc<Names>,
    publisher: Arc<Publisher>,
}

struct RabbitReceipt {
    settler: Arc<Settler>,
    /// Taken once the delivery is acknowledged.
    acker: Option<Acker>,
    /// Closed when nobody holds it; after [`Consumer::stop`] that is when the last delivery is settled.
    channel: Arc<Channel>,
    id: String,
    from: Tap,
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
        self.settler.successor(&self.id, self.from, payload, counts, verdict).await?;
        let Some(acker) = self.acker.take() else { return Err(QueueError::Stale) };
        match rpc("basic.ack", acker.ack(BasicAckOptions::default())).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(QueueError::Stale),
        }
    }
}

/// What was not settled goes back at once, counted by the broker as a failed delivery.
impl Drop for RabbitReceipt {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let channel = self.channel.clone();
            runtime.spawn(async move {
                // A consumer that goes at the same time gives it back by itself; both would count it twice.
                tokio::time::sleep(DROP_DELAY).await;
                let back = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                let returned = rpc("basic.nack", acker.nack(back)).await;
                tracing::debug!(?returned, channel = channel.id(), "a delivery was dropped");
            });
        }
    }
}

impl Settler {
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
            Verdict::Release { after } if after.is_zero() => self.later(id, from, &payload, counts, after).await,
            Verdict::Release { after } => self.later(id, started(from), &payload, counts, after).await,
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
                let due = Timestamp::now().saturating_add(after).unwrap_or(Timestamp::MAX);
                (To { exchange: self.names.rung(after), key: short(&key(tap)) }, envelope::with_due(properties, due))
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
