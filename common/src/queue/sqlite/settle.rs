//! What becomes of a delivery: each verdict is one transaction.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::consumer::Seat;
use super::jobs::{self, Claim, Entry};
use super::pulse::Order;
use super::{Store, clock};
use crate::queue::{Burial, Counts, QueueError, Receipt, Tap, Verdict};

/// A job in hand.
pub(super) struct Held {
    store: Arc<Store>,
    seat: Arc<Seat>,
    claim: Claim,
    from: Tap,
    settled: bool,
}

impl Held {
    pub(super) fn new(store: Arc<Store>, seat: Arc<Seat>, claim: Claim) -> Held {
        let from = seat.tap();
        Held { store, seat, claim, from, settled: false }
    }
}

#[async_trait]
impl Receipt for Held {
    async fn settle(
        mut self: Box<Self>,
        payload: Vec<u8>,
        counts: &Counts,
        verdict: Verdict,
    ) -> Result<(), QueueError> {
        if self.seat.is_gone() {
            return Err(QueueError::Stale);
        }
        let (claim, namespace, boot) = (self.claim, self.store.namespace.clone(), self.store.boot.clone());
        let change = Change { namespace, boot, from: self.from, payload, counts: counts.clone(), verdict };
        let was_ours = self.store.writer.settle(move |tx| match jobs::take_out(tx, claim)? {
            None => Ok(false),
            Some(id) => change.carry_out(tx, &id).map(|()| true),
        });
        let was_ours = was_ours.await?;
        self.settled = true;
        if was_ours { Ok(()) } else { Err(QueueError::Stale) }
    }
}

/// A delivery that nobody settled, or whose settling failed, comes back; a settled one makes room.
impl Drop for Held {
    fn drop(&mut self) {
        self.seat.free();
        if self.settled || self.seat.is_gone() {
            self.store.kick();
        } else {
            self.store.order(Order::Lose(self.claim));
        }
    }
}

struct Change {
    namespace: String,
    boot: String,
    from: Tap,
    payload: Vec<u8>,
    counts: Counts,
    verdict: Verdict,
}

impl Change {
    fn carry_out(&self, tx: &Transaction<'_>, id: &str) -> rusqlite::Result<()> {
        let counts = &self.counts;
        match &self.verdict {
            Verdict::Done => Ok(()),
            Verdict::Continue { payload, after } => {
                let afresh = Counts { first_at: counts.first_at, ..Counts::default() };
                self.put(tx, id, payload, &afresh, *after, started(self.from))
            }
            Verdict::Retry { after, error } => {
                let attempt = counts.attempt.saturating_add(1);
                let counted = Counts { attempt, last_error: Some(error.clone()), ..counts.clone() };
                self.put(tx, id, &self.payload, &counted, *after, started(self.from))
            }
            Verdict::Release { after } => {
                let tap = if after.is_zero() { self.from } else { started(self.from) };
                self.put(tx, id, &self.payload, counts, *after, tap)
            }
            Verdict::Defer { after } => self.put(tx, id, &self.payload, counts, *after, self.from),
            Verdict::Move { to } => self.put(tx, id, &self.payload, counts, Duration::ZERO, *to),
            Verdict::Bury(burial) => self.bury(tx, id, burial),
        }
    }

    fn put(
        &self,
        tx: &Transaction<'_>,
        id: &str,
        payload: &[u8],
        counts: &Counts,
        after: Duration,
        tap: Tap,
    ) -> rusqlite::Result<()> {
        let due_ns = clock::now_ns().saturating_add(clock::ns(after));
        let due = (!after.is_zero()).then_some((self.boot.as_str(), due_ns));
        let tap = jobs::word(tap);
        jobs::put(tx, &Entry { namespace: &self.namespace, tap, id, payload, counts, due })
    }

    fn bury(&self, tx: &Transaction<'_>, id: &str, burial: &Burial) -> rusqlite::Result<()> {
        let burial =
            serde_json::to_string(burial).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let first_at = self.counts.first_at.map(jobs::nanoseconds);
        let last_at = jobs::nanoseconds(Timestamp::now());
        tx.execute(
            "INSERT INTO dead (namespace, id, payload, attempts, first_at, last_at, burial)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![self.namespace, id, self.payload, self.counts.attempt, first_at, last_at, burial],
        )
        .map(drop)
    }
}

/// Where a job goes on; one that is lost stays so until it is buried.
fn started(from: Tap) -> Tap {
    match from {
        Tap::New(lane) | Tap::Started(lane) => Tap::Started(lane),
        Tap::Lost => Tap::Lost,
    }
}
