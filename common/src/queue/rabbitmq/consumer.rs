//! Taking jobs, and settling them. Whatever changes a job publishes its successor, confirmed, before the old message is
//! acknowledged: a crash between the two leaves two copies, never none.
//!
//! Each job in hand has a channel and a consumer of its own, with room for that one message. So a consumer is cancelled
//! only while it holds nothing, or in the moment of its acknowledgement: when a node dies, RabbitMQ (seen on 3.10.8) does
//! not give back what a cancelled consumer there held, until the queue elects another leader.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Acker, Channel};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use super::envelope;
use super::link::{Link, rpc};
use super::publisher::{Publisher, To};
use super::topology::{Names, close, key, short};
use crate::job::Lane;
use crate::queue::{Consumer, Counts, Delivery, Queue, QueueError, Receipt, Tap, Verdict};

/// A due time this close is now: rungs and clocks are not exact.
const DUE_SLACK: Duration = Duration::from_secs(1);

pub(super) struct RabbitQueue {
    names: Arc<Names>,
    publisher: Arc<Publisher>,
    link: Arc<Link>,
    /// Which subscriptions the broker has once accepted.
    accepted: Mutex<HashMap<Tap, Arc<AtomicBool>>>,
}

impl RabbitQueue {
    pub(super) fn new(names: Arc<Names>, publisher: Arc<Publisher>, link: Arc<Link>) -> RabbitQueue {
        RabbitQueue { names, publisher, link, accepted: Mutex::default() }
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
        let accepted = self.accepted.lock().await.entry(from).or_default().clone();
        let mut consumer = RabbitConsumer {
            link: self.link.clone(),
            settler: desk,
            from,
            accepted,
            places: Arc::new(Semaphore::new(usize::from(in_flight))),
            place: None,
            opening: None,
            subscription: None,
            in_hand: Vec::new(),
        };
        consumer.subscribe().await?;
        Ok(Box::new(consumer))
    }

    async fn close(&self) {
        tokio::join!(self.publisher.close(), self.link.close());
    }
}

struct RabbitConsumer {
    link: Arc<Link>,
    settler: Arc<Settler>,
    from: Tap,
    accepted: Arc<AtomicBool>,
    places: Arc<Semaphore>,
    /// For the job that `subscription` waits for.
    place: Option<OwnedSemaphorePermit>,
    /// A task of its own: [`Consumer::next`] may be cancelled, and a job may already be on its way.
    opening: Option<JoinHandle<Result<Subscription, QueueError>>>,
    subscription: Option<Subscription>,
    /// Where the jobs came that are not settled.
    in_hand: Vec<Weak<Channel>>,
}

/// Where one job arrives.
struct Subscription {
    channel: Arc<Channel>,
    tag: ShortString,
    messages: lapin::Consumer,
}

impl RabbitConsumer {
    async fn subscribe(&mut self) -> Result<(), QueueError> {
        if self.subscription.is_some() {
            return Ok(());
        }
        let (link, queue) = (self.link.clone(), self.settler.names.queue(self.from));
        let accepted = self.accepted.clone();
        let opening = self.opening.get_or_insert_with(|| {
            tokio::spawn(async move { link.repeat(&accepted, || subscription(&link, queue.clone())).await })
        });
        let opened = opening.await;
        self.opening = None;
        self.subscription = Some(opened.map_err(|error| QueueError::Unavailable(error.to_string()))??);
        Ok(())
    }

    fn delivery(&mut self, message: Message, subscription: Subscription) -> Delivery {
        self.in_hand.retain(|channel| channel.strong_count() > 0);
        self.in_hand.push(Arc::downgrade(&subscription.channel));
        Delivery {
            counts: envelope::counts(&message.properties),
            from: self.from,
            receipt: Box::new(RabbitReceipt {
                settler: self.settler.clone(),
                acker: Some(message.acker),
                subscription: Some(subscription),
                _place: self.place.take(),
                id: envelope::message_id(&message.properties)
                    .unwrap_or_else(|| crate::status::message_id(&message.data)),
                from: self.from,
            }),
            payload: message.data,
        }
    }
}

async fn subscription(link: &Link, queue: ShortString) -> Result<Subscription, QueueError> {
    let channel = link.channel().await?;
    rpc("basic.qos", channel.basic_qos(1, BasicQosOptions::default())).await?;
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
            if self.place.is_none() {
                self.place = self.places.clone().acquire_owned().await.ok();
            }
            self.subscribe().await?;
            let Some(waiting) = self.subscription.as_mut() else { continue };
            let message = match waiting.messages.next().await {
                Some(Ok(message)) => message,
                broken => {
                    say_broken(&self.settler.names.queue(self.from), broken.and_then(Result::err));
                    self.subscription = None;
                    tokio::time::sleep(crate::backoff::jitter(Duration::from_secs(1))).await;
                    continue;
                }
            };
            let Some(subscription) = self.subscription.take() else { continue };
            let early = envelope::due(&message.properties).and_then(remaining);
            let delivery = self.delivery(message, subscription);
            match early {
                None => return Ok(delivery),
                // In a task of its own: this call may be cancelled, and the job must not hang on it.
                Some(after) => drop(tokio::spawn(delivery.settle(Verdict::Defer { after }))),
            }
        }
    }

    async fn stop(&mut self) -> Result<(), QueueError> {
        self.in_hand.clear();
        if let Some(opening) = self.opening.take() {
            opening.abort();
            self.subscription = opening.await.ok().and_then(Result::ok);
        }
        let Some(mut subscription) = self.subscription.take() else { return Ok(()) };
        if let Err(error) = subscription.cancel().await {
            tracing::debug!(%error, "what was sent ahead goes back with its channel");
        } else if let Some(Ok(message)) = subscription.messages.next().await {
            let ahead = self.delivery(message, subscription);
            self.in_hand.clear();
            return ignore_stale(ahead.settle(Verdict::Release { after: Duration::ZERO }).await);
        }
        close(&subscription.channel).await;
        Ok(())
    }
}

impl Subscription {
    async fn cancel(&self) -> Result<(), QueueError> {
        rpc("basic.cancel", self.channel.basic_cancel(self.tag.clone(), BasicCancelOptions::default())).await
    }
}

/// Without a stop, what is in hand goes back at once, counted as a crash.
impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        if let Some(opening) = self.opening.take() {
            opening.abort();
        }
        let waiting = self.subscription.take().map(|subscription| subscription.channel);
        for channel in self.in_hand.drain(..).filter_map(|channel| channel.upgrade()).chain(waiting) {
            close_later(channel);
        }
    }
}

/// Whatever was delivered there and not acknowledged goes back, counted by the broker as a failed delivery.
fn close_later(channel: Arc<Channel>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move { close(&channel).await });
    }
}

/// The loss of the whole connection is said by itself, once for all subscriptions.
fn say_broken(queue: &ShortString, error: Option<lapin::Error>) {
    match error {
        Some(error) if error.is_amqp_soft_error() => {
            tracing::warn!(%queue, %error, "the broker ended a subscription; subscribing again");
        }
        Some(error) => tracing::debug!(%queue, %error, "subscription broke; subscribing again"),
        None => {
            tracing::warn!(%queue, "the broker ended a subscription, as when its queue is deleted; subscribing again")
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
    /// Where the job came; of no more use when it is settled.
    subscription: Option<Subscription>,
    _place: Option<OwnedSemaphorePermit>,
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
        if let Some(subscription) = &self.subscription
            && let Err(error) = subscription.cancel().await
        {
            tracing::debug!(%error, "the subscription is gone already");
        }
        let Some(acker) = self.acker.take() else { return Err(QueueError::Stale) };
        match rpc("basic.ack", acker.ack(BasicAckOptions::default())).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(QueueError::Stale),
        }
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
