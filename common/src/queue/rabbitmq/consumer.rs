//! Taking jobs. Each job in hand has a channel and a consumer of its own, with room for that one message: see [`Pool`].

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use jiff::Timestamp;
use lapin::Channel;
use lapin::types::ShortString;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::envelope;
use super::link::Link;
use super::pool::{Pool, Subscription, close_later};
use super::publisher::{Publisher, To};
use super::settle::{Settler, Taking};
use super::topology::{Names, close, key, short};
use crate::backoff::jitter;
use crate::job::Lane;
use crate::queue::{Consumer, Counts, Delivery, Queue, QueueError, Tap, Verdict};

/// A due time this close is now: rungs and clocks are not exact. One that is further off than any wait of ours is not ours.
const DUE_SLACK: Duration = Duration::from_secs(1);
const DUE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// After so long without a job, one subscription is enough: others would only keep jobs from workers with room.
const QUIET: Duration = Duration::from_secs(1);

/// Before subscribing again, at least.
const AGAIN: Duration = Duration::from_secs(1);

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
        let accepted = self.accepted.lock().await.entry(from).or_default().clone();
        let mut consumer = RabbitConsumer {
            link: self.link.clone(),
            taking: Arc::new(Taking {
                settler: Settler::new(self.names.clone(), self.publisher.clone()),
                pool: Pool::default(),
                from,
            }),
            queue: self.names.queue(from),
            accepted,
            places: Arc::new(Semaphore::new(usize::from(in_flight))),
            opening: None,
            channels: Vec::new(),
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
    taking: Arc<Taking>,
    queue: ShortString,
    accepted: Arc<AtomicBool>,
    /// One for each subscription, with a job or without.
    places: Arc<Semaphore>,
    /// A task of its own: [`Consumer::next`] may be cancelled, and a job may already be on its way.
    opening: Option<JoinHandle<Result<Subscription, QueueError>>>,
    /// Of all subscriptions that were made.
    channels: Vec<Weak<Channel>>,
}

impl RabbitConsumer {
    /// One more subscription, once there is a place for it. Cancel-safe.
    async fn subscribe(&mut self) -> Result<(), QueueError> {
        if self.opening.is_none() {
            let Ok(place) = self.places.clone().acquire_owned().await else { return Ok(()) };
            let (link, queue, accepted) = (self.link.clone(), self.queue.clone(), self.accepted.clone());
            self.opening = Some(tokio::spawn(async move {
                let opened = link.repeat(&accepted, || Subscription::open(&link, queue.clone())).await;
                opened.map(|subscription| subscription.at(place))
            }));
        }
        let Some(opening) = self.opening.as_mut() else { return Ok(()) };
        let opened = opening.await;
        self.opening = None;
        let subscription = opened.map_err(|error| QueueError::Unavailable(error.to_string()))??;
        self.channels.retain(|channel| channel.strong_count() > 0);
        self.channels.push(Arc::downgrade(&subscription.channel));
        if let Some(subscription) = self.taking.pool.put(subscription) {
            close(&subscription.channel).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Consumer for RabbitConsumer {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        loop {
            let taking = self.taking.clone();
            let waiting = taking.pool.len();
            let arrival = tokio::select! {
                biased;
                arrival = taking.pool.arrival() => arrival,
                subscribed = self.subscribe(), if waiting == 0 || self.opening.is_some() => {
                    subscribed?;
                    continue;
                }
                () = sleep(QUIET), if waiting > 1 => {
                    taking.pool.spare().into_iter().for_each(|one| taking.clone().retire_later(one));
                    continue;
                }
            };
            let (message, subscription) = match arrival {
                Ok(job) => job,
                Err(error) => {
                    say_broken(&self.queue, error);
                    sleep(jitter(AGAIN)).await;
                    continue;
                }
            };
            let early = envelope::due(&message.properties).and_then(remaining);
            let delivery = taking.delivery(message, subscription);
            match early {
                None => return Ok(delivery),
                // In a task of its own: this call may be cancelled, and the job must not hang on it.
                Some(after) => drop(tokio::spawn(delivery.settle(Verdict::Defer { after }))),
            }
        }
    }

    async fn stop(&mut self) -> Result<(), QueueError> {
        self.channels.clear();
        let mut waiting = self.taking.pool.shut();
        if let Some(opening) = self.opening.take() {
            opening.abort();
            waiting.extend(opening.await.ok().and_then(Result::ok));
        }
        let retired = waiting.into_iter().map(|subscription| self.taking.clone().retire(subscription));
        join_all(retired).await.into_iter().collect()
    }
}

/// Without a stop, what is in hand goes back at once, counted as a crash.
impl Drop for RabbitConsumer {
    fn drop(&mut self) {
        if let Some(opening) = self.opening.take() {
            opening.abort();
        }
        // Not dropped before their channels are being closed.
        let _waiting = self.taking.pool.shut();
        self.channels.drain(..).filter_map(|channel| channel.upgrade()).for_each(close_later);
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
    (left > DUE_SLACK).then_some(left.min(DUE_MAX))
}
