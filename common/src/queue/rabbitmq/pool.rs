//! Where jobs arrive: subscriptions, each on a channel of its own with room for one message.
//!
//! A subscription is cancelled only while it holds nothing, or in the moment of its acknowledgement: when a node dies,
//! RabbitMQ (seen on 3.10.8) does not give back what a cancelled consumer there held, until the queue elects another
//! leader. One whose job is settled waits for the next job, for to subscribe and to cancel costs the queue more than a
//! job does.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::{Stream as _, StreamExt as _};
use lapin::message::Delivery as Message;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer};
use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::link::{Link, rpc};
use super::topology::{close, short};
use crate::queue::QueueError;

/// Where one job arrives.
pub(super) struct Subscription {
    pub(super) channel: Arc<Channel>,
    tag: ShortString,
    messages: Consumer,
    is_cancelled: bool,
    _place: Option<OwnedSemaphorePermit>,
}

impl Subscription {
    pub(super) async fn open(link: &Link, queue: ShortString) -> Result<Subscription, QueueError> {
        let channel = link.channel().await?;
        rpc("basic.qos", channel.basic_qos(1, BasicQosOptions::default())).await?;
        let tag = short(&format!("imagewright-{}", fastrand::u64(..)));
        let options = BasicConsumeOptions::default();
        let messages =
            rpc("basic.consume", channel.basic_consume(queue, tag.clone(), options, FieldTable::default())).await?;
        Ok(Subscription { channel: Arc::new(channel), tag, messages, is_cancelled: false, _place: None })
    }

    /// The same, keeping a place until it is dropped.
    pub(super) fn at(self, place: OwnedSemaphorePermit) -> Subscription {
        Subscription { _place: Some(place), ..self }
    }

    /// Nothing more is sent to it.
    pub(super) async fn cancel(&mut self) -> Result<(), QueueError> {
        self.is_cancelled = true;
        rpc("basic.cancel", self.channel.basic_cancel(self.tag.clone(), BasicCancelOptions::default())).await
    }

    /// Cancel it while it waits; what had been sent to it meanwhile.
    pub(super) async fn end(&mut self) -> Option<Message> {
        if self.is_cancelled {
            return None;
        }
        match self.cancel().await {
            Ok(()) => self.messages.next().await?.ok(),
            Err(error) => {
                tracing::debug!(%error, "what was sent ahead goes back with its channel");
                None
            }
        }
    }
}

/// What waits there unsettled goes back, counted by the broker as a failed delivery.
pub(super) fn close_later(channel: Arc<Channel>) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move { close(&channel).await });
    }
}

/// The subscriptions of one consumer that wait for a job, longest first: to these the broker sends in that order.
#[derive(Default)]
pub(super) struct Pool {
    state: Mutex<State>,
    came: Notify,
}

#[derive(Default)]
struct State {
    waiting: Vec<Subscription>,
    closed: bool,
}

/// What happens to those that wait: a job, or at least one broke, and why; it is no longer there.
pub(super) type Arrival = Result<(Message, Subscription), Option<lapin::Error>>;

impl Pool {
    /// Let it wait. Given back if it is cancelled, or nobody takes jobs any more.
    pub(super) fn put(&self, subscription: Subscription) -> Option<Subscription> {
        let mut state = self.state();
        if state.closed || subscription.is_cancelled {
            return Some(subscription);
        }
        state.waiting.push(subscription);
        drop(state);
        self.came.notify_one();
        None
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// All but one of those that wait.
    pub(super) fn spare(&self) -> Vec<Subscription> {
        let mut state = self.state();
        let first = state.waiting.len().min(1);
        state.waiting.split_off(first)
    }

    /// No more jobs are taken; those that wait.
    pub(super) fn shut(&self) -> Vec<Subscription> {
        let mut state = self.state();
        state.closed = true;
        std::mem::take(&mut state.waiting)
    }

    /// The next thing that happens. Cancel-safe.
    pub(super) async fn arrival(&self) -> Arrival {
        loop {
            let came = self.came.notified();
            tokio::select! {
                arrival = std::future::poll_fn(|context| self.poll(context)) => return arrival,
                () = came => {}
            }
        }
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Arrival> {
        let mut state = self.state();
        for index in 0..state.waiting.len() {
            match Pin::new(&mut state.waiting[index].messages).poll_next(context) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(message))) => {
                    return Poll::Ready(Ok((message, state.waiting.remove(index))));
                }
                Poll::Ready(broken) => {
                    state.waiting.remove(index);
                    // A lost connection takes all of them at once.
                    state.waiting.retain(|one| one.channel.status().connected());
                    return Poll::Ready(Err(broken.and_then(Result::err)));
                }
            }
        }
        Poll::Pending
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
