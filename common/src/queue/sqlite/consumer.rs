//! Jobs in and out: publishing, and subscriptions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Transaction, params};
use tokio::sync::Notify;

use super::jobs::{self, Claimed, Entry};
use super::pulse::{LEASE, Order};
use super::settle::Held;
use super::{Handle, Store, clock, lock};
use crate::job::Lane;
use crate::queue::{Consumer, Counts, Delivery, Queue, QueueError, Tap};

/// How long a job lies claimed at a seat that nobody comes back to.
const AHEAD_MAX: Duration = Duration::from_secs(1);

/// What the threads know of one subscription.
pub(super) struct Seat {
    pub(super) holder: i64,
    tap: Tap,
    pub(super) word: String,
    in_flight: u16,
    state: Mutex<State>,
    arrived: Notify,
    /// The consumer was dropped: its deliveries are somebody else's.
    gone: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Somebody waits in `next` right now.
    wanted: bool,
    stopped: bool,
    /// Claimed and not settled, what lies ahead included.
    unsettled: u16,
    /// Claimed while the one who wanted it left.
    ahead: VecDeque<Claimed>,
    ahead_since: Option<Instant>,
    error: Option<QueueError>,
}

impl Seat {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(super) fn is_hungry(&self) -> bool {
        let state = self.state();
        state.wanted && !state.stopped && state.ahead.is_empty() && state.unsettled < self.in_flight
    }

    pub(super) fn tap(&self) -> Tap {
        self.tap
    }

    /// Its tap as long as it takes jobs.
    pub(super) fn open_tap(&self) -> Option<&str> {
        (!self.state().stopped).then_some(self.word.as_str())
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    pub(super) fn give(&self, claimed: Claimed) {
        let mut state = self.state();
        state.unsettled += 1;
        state.ahead.push_back(claimed);
        state.ahead_since = Some(Instant::now());
        drop(state);
        self.arrived.notify_one();
    }

    pub(super) fn fail(&self, error: QueueError) {
        let mut state = self.state();
        if state.wanted {
            state.error = Some(error);
        }
        drop(state);
        self.arrived.notify_one();
    }

    /// A delivery is settled, or lost.
    pub(super) fn free(&self) {
        let mut state = self.state();
        state.unsettled = state.unsettled.saturating_sub(1);
    }

    pub(super) fn has_ahead(&self) -> bool {
        !self.state().ahead.is_empty()
    }

    pub(super) fn is_forgotten(&self) -> bool {
        let state = self.state();
        !state.wanted && !state.ahead.is_empty() && state.ahead_since.is_some_and(|since| since.elapsed() > AHEAD_MAX)
    }

    /// What was claimed and not handed out, to be given back. Called where claims are made, so that none comes after.
    pub(super) fn take_ahead(&self) -> Vec<Claimed> {
        let mut state = self.state();
        let taken: Vec<Claimed> = state.ahead.drain(..).collect();
        state.unsettled = state.unsettled.saturating_sub(u16::try_from(taken.len()).unwrap_or(u16::MAX));
        taken
    }

    /// The same, when whoever wanted it has not come back for it.
    pub(super) fn take_forgotten(&self) -> Vec<Claimed> {
        if self.is_forgotten() { self.take_ahead() } else { Vec::new() }
    }
}

#[async_trait]
impl Queue for Handle {
    async fn publish(&self, lane: Lane, id: &str, payload: &[u8]) -> Result<(), QueueError> {
        let store = &self.0;
        let (namespace, id, payload) = (store.namespace.clone(), id.to_owned(), payload.to_owned());
        let counts = Counts { first_at: Some(Timestamp::now()), ..Counts::default() };
        let put = move |tx: &Transaction<'_>| {
            let tap = jobs::word(Tap::New(lane));
            jobs::put(tx, &Entry { namespace: &namespace, tap, id: &id, payload: &payload, counts: &counts, due: None })
        };
        store.writer.write(put).await?;
        store.kick();
        Ok(())
    }

    async fn consume(&self, from: Tap, in_flight: u16) -> Result<Box<dyn Consumer>, QueueError> {
        if in_flight == 0 {
            return Err(QueueError::Refused("a consumer takes at least one job at a time".to_owned()));
        }
        let (store, word) = (&self.0, jobs::word(from));
        let (process, namespace, boot, tap) =
            (store.process.clone(), store.namespace.clone(), store.boot.clone(), word.clone());
        let subscribe = move |tx: &Transaction<'_>| {
            tx.execute(
                "INSERT INTO subscriptions (process, namespace, tap, boot, lease_ns) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![process, namespace, tap, boot, clock::now_ns().saturating_add(clock::ns(LEASE))],
            )?;
            Ok(tx.last_insert_rowid())
        };
        let holder = store.writer.write(subscribe).await?;
        let seat = Arc::new(Seat {
            holder,
            tap: from,
            word,
            in_flight,
            state: Mutex::default(),
            arrived: Notify::new(),
            gone: AtomicBool::new(false),
        });
        lock(&store.seats).push(Arc::downgrade(&seat));
        store.order(Order::Look);
        Ok(Box::new(Subscription { store: store.clone(), seat }))
    }
}

struct Subscription {
    store: Arc<Store>,
    seat: Arc<Seat>,
}

/// Takes the wish back when the one who waits leaves.
struct Wish<'a>(&'a Seat);

impl Drop for Wish<'_> {
    fn drop(&mut self) {
        self.0.state().wanted = false;
    }
}

impl Subscription {
    /// What lies ready, else a wish for it.
    fn take_or_wish(&self) -> Result<Option<Delivery>, QueueError> {
        let mut state = self.seat.state();
        if let Some(Claimed { claim, payload, counts }) = state.ahead.pop_front() {
            let receipt = Box::new(Held::new(self.store.clone(), self.seat.clone(), claim));
            return Ok(Some(Delivery { payload, from: self.seat.tap, counts, receipt }));
        }
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        if state.stopped {
            return Err(QueueError::Refused("this consumer was stopped".to_owned()));
        }
        state.wanted = true;
        Ok(None)
    }
}

#[async_trait]
impl Consumer for Subscription {
    async fn next(&mut self) -> Result<Delivery, QueueError> {
        loop {
            if let Some(delivery) = self.take_or_wish()? {
                return Ok(delivery);
            }
            let _wish = Wish(&self.seat);
            self.store.kick();
            self.seat.arrived.notified().await;
        }
    }

    async fn stop(&mut self) -> Result<(), QueueError> {
        self.seat.state().stopped = true;
        let (seat, mut taken) = (self.seat.clone(), Vec::new());
        let hand_back = move |tx: &Transaction<'_>| {
            taken.extend(seat.take_ahead());
            taken.iter().try_for_each(|ahead| jobs::hand_back(tx, ahead.claim))?;
            tx.execute("UPDATE subscriptions SET tap = NULL WHERE id = ?1", params![seat.holder]).map(drop)
        };
        self.store.writer.write(hand_back).await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.seat.gone.store(true, Ordering::Release);
        self.store.order(Order::End(self.seat.holder));
    }
}
