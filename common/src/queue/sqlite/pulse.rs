//! The heartbeat of a process: renews the leases of all its subscriptions in one statement, and takes jobs from holders
//! whose lease ran out. On a thread and a connection of its own, so that no backlog of writes delays it; without waiting
//! for the disk, since a lease means nothing after a power cut.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::{Connection, Transaction, params};

use super::jobs::{self, Claim};
use super::keeper::{Promise, start_thread, write_now};
use super::log::Line;
use super::{Store, clock, log};
use crate::queue::QueueError;

/// How long a subscription outlives its process.
pub(super) const LEASE: Duration = Duration::from_secs(5);

const RENEWAL: Duration = Duration::from_secs(1);

const TICK: Duration = Duration::from_millis(250);

/// For how long we must have renewed without a gap before we believe that others could have, too. A locked file or a
/// sleeping machine keeps everybody from renewing, and whoever comes first must not take all that the others hold.
const STEADY: Duration = Duration::from_secs(2);

/// A gap between two renewals that says something was in the way.
const GAP: Duration = Duration::from_secs(3);

/// What the pulse is told.
pub(super) enum Order {
    /// There may be something to renew.
    Look,
    /// A subscription ended: what it held comes back, counted.
    End(i64),
    /// A delivery was neither settled nor kept: it comes back, counted.
    Lose(Claim),
    /// Progress, for those who follow the log now.
    Say(Line),
}

pub(super) fn start(
    store: &Arc<Store>,
    connection: Connection,
    orders: Receiver<Order>,
    path: PathBuf,
) -> Result<(), QueueError> {
    let now_ns = clock::now_ns();
    let pulse = Pulse {
        store: Arc::downgrade(store),
        connection,
        orders,
        path,
        pending: Vec::new(),
        renewed_ns: 0,
        steady_ns: now_ns,
        trim: log::Trim::default(),
    };
    start_thread("queue-pulse", move || pulse.run())
}

struct Pulse {
    store: Weak<Store>,
    connection: Connection,
    orders: Receiver<Order>,
    path: PathBuf,
    /// Orders not carried out yet: the file may be locked or the disk full for a while.
    pending: Vec<Order>,
    renewed_ns: i64,
    /// Since when renewals follow each other without a gap.
    steady_ns: i64,
    trim: log::Trim,
}

impl Pulse {
    fn run(mut self) {
        let mut is_needed = false;
        loop {
            let order = if is_needed {
                match self.orders.recv_timeout(TICK) {
                    Ok(order) => Some(order),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => return self.carry_out(),
                }
            } else {
                match self.orders.recv() {
                    Ok(order) => Some(order),
                    Err(_) => return self.carry_out(),
                }
            };
            self.pending.extend(order);
            self.pending.extend(self.orders.try_iter());
            self.carry_out();
            let Some(store) = self.store.upgrade() else { continue };
            is_needed = self.beat(&store);
        }
    }

    /// One transaction for all that is pending; kept for the next tick if it fails.
    fn carry_out(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pending = &self.pending;
        let done = write_now(Promise::Fleeting, &self.path, &mut self.connection, |tx| {
            pending.iter().try_for_each(|order| order.carry_out(tx))
        });
        match done {
            Ok(()) => self.pending.clear(),
            Err(error) => {
                tracing::warn!(%error, "the queue cannot be written; trying again");
                // Progress is old by then.
                self.pending.retain(|order| !matches!(order, Order::Say(_)));
            }
        }
    }

    /// Returns whether there will be something to do without being told.
    fn beat(&mut self, store: &Arc<Store>) -> bool {
        let holders: Vec<i64> = store.seats().iter().filter(|seat| !seat.is_gone()).map(|seat| seat.holder).collect();
        if !holders.is_empty() {
            let renewed = self.renew(store, &holders).and_then(|()| self.take_from_the_dead(store));
            store.up.send_if_modified(|up| std::mem::replace(up, renewed.is_ok()) != renewed.is_ok());
            if let Err(error) = renewed {
                tracing::warn!(%error, "the leases of this process cannot be renewed; trying again");
            }
        }
        self.trim.tick(&self.path, &mut self.connection);
        !holders.is_empty() || !self.pending.is_empty() || self.trim.is_needed()
    }

    fn renew(&mut self, store: &Store, holders: &[i64]) -> Result<(), QueueError> {
        let now_ns = clock::now_ns();
        if now_ns - self.renewed_ns < clock::ns(RENEWAL) {
            return Ok(());
        }
        let (process, lease_ns) = (store.process.as_str(), now_ns.saturating_add(clock::ns(LEASE)));
        let renewed = write_now(Promise::Fleeting, &self.path, &mut self.connection, |tx| {
            tx.prepare_cached("UPDATE subscriptions SET lease_ns = ?1 WHERE process = ?2")?
                .execute(params![lease_ns, process])
        })?;
        let now_ns = clock::now_ns();
        if now_ns - self.renewed_ns > clock::ns(GAP) {
            self.steady_ns = now_ns;
        }
        self.renewed_ns = now_ns;
        if renewed < holders.len() { self.subscribe_again(store, lease_ns) } else { Ok(()) }
    }

    /// We were taken for dead, as a stopped process is. What we held is lost; the subscriptions go on.
    fn subscribe_again(&mut self, store: &Store, lease_ns: i64) -> Result<(), QueueError> {
        let seats = store.seats();
        write_now(Promise::Fleeting, &self.path, &mut self.connection, |tx| {
            for seat in seats.iter().filter(|seat| !seat.is_gone()) {
                tx.execute(
                    "INSERT OR IGNORE INTO subscriptions (id, process, namespace, tap, boot, lease_ns)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![seat.holder, store.process, store.namespace, seat.open_tap(), store.boot, lease_ns],
                )?;
            }
            Ok(())
        })?;
        store.kick();
        Ok(())
    }

    fn take_from_the_dead(&mut self, store: &Store) -> Result<(), QueueError> {
        let now_ns = clock::now_ns();
        let lapsed_ns = if now_ns - self.steady_ns >= clock::ns(STEADY) { now_ns } else { return Ok(()) };
        let abandoned = {
            let explain = |error: rusqlite::Error| super::failure::explain(&self.path, &error);
            let tx = self.connection.transaction().map_err(explain)?;
            jobs::any_abandoned(&tx, lapsed_ns).map_err(explain)?
        };
        if abandoned {
            write_now(Promise::Fleeting, &self.path, &mut self.connection, |tx| jobs::return_abandoned(tx, lapsed_ns))?;
            store.kick();
        }
        Ok(())
    }
}

impl Order {
    fn carry_out(&self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        match self {
            Order::Look => Ok(()),
            Order::End(holder) => jobs::end_subscription(tx, *holder),
            Order::Lose(claim) => jobs::lose(tx, *claim),
            Order::Say(line) => line.write(tx),
        }
    }
}
