//! The one poller of a process: sees what other processes wrote, and when waits end, and has seats filled.
//!
//! It asks `PRAGMA data_version`, which costs microseconds, and looks at tables only when that moved. It sleeps for good
//! while nobody waits for anything.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::consumer::Seat;
use super::keeper::{Promise, start_thread, write_now};
use super::{Store, clock, failure, jobs};
use crate::queue::QueueError;

const TICK: Duration = Duration::from_millis(20);

/// After this many quiet ticks the seats are looked through all the same, for those that were left.
const ROUND: u32 = 10;

pub(super) fn start(store: &Arc<Store>, connection: Connection, kicks: Receiver<()>) -> Result<(), QueueError> {
    let watcher = Watcher { store: Arc::downgrade(store), connection, kicks, version: 0, next_due_ns: None, quiet: 0 };
    start_thread("queue-watch", move || watcher.run())
}

struct Watcher {
    store: Weak<Store>,
    connection: Connection,
    kicks: Receiver<()>,
    /// Differs once another connection, of this process or another, has written.
    version: i64,
    next_due_ns: Option<i64>,
    /// Ticks at which nothing had happened, in a row.
    quiet: u32,
}

impl Watcher {
    fn run(mut self) {
        let mut is_needed = false;
        loop {
            let kicked = if is_needed {
                match self.kicks.recv_timeout(TICK) {
                    Ok(()) => true,
                    Err(RecvTimeoutError::Timeout) => false,
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            } else {
                match self.kicks.recv() {
                    Ok(()) => true,
                    Err(_) => return,
                }
            };
            while self.kicks.try_recv().is_ok() {}
            let Some(store) = self.store.upgrade() else { return };
            is_needed = self.tick(&store, kicked);
        }
    }

    /// Returns whether somebody still waits for something.
    fn tick(&mut self, store: &Arc<Store>, kicked: bool) -> bool {
        let written = self.notice(store);
        let due = self.next_due_ns.is_some_and(|due_ns| due_ns <= clock::now_ns());
        let is_quiet = matches!(written, Ok(false)) && !kicked && !due;
        self.quiet = if is_quiet { self.quiet + 1 } else { 0 };
        if !self.quiet.is_multiple_of(ROUND) {
            return true;
        }
        let seats = store.seats();
        seats.iter().filter(|seat| seat.is_forgotten()).for_each(|seat| forget(store, seat));
        let hungry: Vec<Arc<Seat>> = seats.iter().filter(|seat| seat.is_hungry()).cloned().collect();
        match written.and_then(|_| self.look(store, &hungry)) {
            Ok(true) => serve(store, hungry.clone()),
            Ok(false) => {}
            Err(error) => hungry.iter().for_each(|seat| seat.fail(failure::again(&error))),
        }
        !hungry.is_empty() || store.is_followed() || seats.iter().any(|seat| seat.has_ahead())
    }

    /// Returns whether something was written, which those who follow the log are told.
    fn notice(&mut self, store: &Store) -> Result<bool, QueueError> {
        let version = data_version(&self.connection).map_err(|error| failure::explain(store.writer.path(), &error));
        let written = !matches!(version, Ok(version) if version == self.version);
        if written {
            // Told of an error as well, for they meet it themselves when they read.
            store.changes.send_replace(());
        }
        self.version = version?;
        Ok(written)
    }

    /// Returns whether there is something to give.
    fn look(&mut self, store: &Store, hungry: &[Arc<Seat>]) -> Result<bool, QueueError> {
        if hungry.is_empty() || store.serving.load(Ordering::Acquire) {
            return Ok(false);
        }
        let explain = |error: rusqlite::Error| failure::explain(store.writer.path(), &error);
        let tx = self.connection.transaction().map_err(explain)?;
        let (next_due_ns, ready) = find(&tx, &store.namespace, hungry).map_err(explain)?;
        self.next_due_ns = next_due_ns;
        Ok(ready || next_due_ns.is_some_and(|due_ns| due_ns <= clock::now_ns()))
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

fn find(tx: &Transaction<'_>, namespace: &str, hungry: &[Arc<Seat>]) -> rusqlite::Result<(Option<i64>, bool)> {
    let next_due_ns = jobs::next_due_ns(tx)?;
    for seat in hungry {
        if jobs::any_ready(tx, namespace, &seat.word)? {
            return Ok((next_due_ns, true));
        }
    }
    Ok((next_due_ns, false))
}

/// Have the writer give each of them a job, in one transaction. The disk is not waited for: whoever gets a job says so in
/// the log before working on it, and that puts the claim on the disk as well.
fn serve(store: &Arc<Store>, hungry: Vec<Arc<Seat>>) {
    store.serving.store(true, Ordering::Release);
    let served = store.clone();
    let told = store.writer.tell(move |connection| {
        let claimed = write_now(Promise::Fleeting, served.writer.path(), connection, |tx| {
            jobs::end_due_waits(tx)?;
            let mut claimed = Vec::new();
            for seat in hungry.iter().filter(|seat| seat.is_hungry()) {
                if let Some(job) = jobs::claim(tx, &served.namespace, &seat.word, seat.holder)? {
                    claimed.push((seat.clone(), job));
                }
            }
            Ok(claimed)
        });
        match claimed {
            Ok(claimed) => claimed.into_iter().for_each(|(seat, job)| seat.give(job)),
            Err(error) => hungry.iter().for_each(|seat| seat.fail(failure::again(&error))),
        }
        served.serving.store(false, Ordering::Release);
        served.kick();
    });
    if told.is_err() {
        store.serving.store(false, Ordering::Release);
    }
}

/// Give back what lies at a seat whose owner has other things to do, so that another process may have it.
fn forget(store: &Arc<Store>, seat: &Arc<Seat>) {
    let (path, seat) = (store.writer.path().to_owned(), seat.clone());
    // Told in vain only when the thread has ended, and the claims with it.
    let _ = store.writer.tell(move |connection| {
        let taken = seat.take_forgotten();
        if taken.is_empty() {
            return;
        }
        let given = write_now(Promise::Fleeting, &path, connection, |tx| {
            taken.iter().try_for_each(|ahead| jobs::hand_back(tx, ahead.claim))
        });
        if given.is_err() {
            taken.into_iter().for_each(|ahead| seat.give(ahead));
        }
    });
}
