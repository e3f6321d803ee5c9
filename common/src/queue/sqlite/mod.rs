//! The embedded queue: one SQLite file, shared by the processes of one machine.
//!
//! Four threads a process, whatever the number of taps: one writes (every change is one transaction), one reads the
//! log, [`watcher`] notices what others wrote and when waits end, [`pulse`] renews the leases.

mod clock;
mod consumer;
mod desk;
mod failure;
mod jobs;
mod keeper;
mod log;
mod pulse;
mod schema;
mod settle;
#[cfg(test)]
mod tests;
mod watcher;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, mpsc};

use tokio::sync::watch;
use uuid::Uuid;

use self::consumer::Seat;
use self::keeper::Keeper;
use self::pulse::Order;
use super::{Backend, QueueError};

/// Open the file at `path`, making it and its directory if there is none.
///
/// # Errors
/// [`QueueError::Refused`] when the file is not ours, damaged, of a later version or not writable;
/// [`QueueError::Unavailable`] when the disk is full or another program keeps the file locked.
pub(super) async fn open(path: &Path, namespace: &str) -> Result<Backend, QueueError> {
    let (path, namespace) = (path.to_owned(), namespace.to_owned());
    let opened = tokio::task::spawn_blocking(move || Store::open(path, namespace)).await;
    let store =
        opened.map_err(|error| QueueError::Unavailable(format!("opening the queue was given up: {error}")))??;
    log::trim(&store).await?;
    let up = store.up.subscribe();
    let handle = Arc::new(Handle(store));
    Ok(Backend { queue: handle.clone(), log: handle.clone(), desk: handle, up })
}

/// One open queue, as the three views of [`Backend`].
struct Handle(Arc<Store>);

/// What the threads and all that was opened here share.
struct Store {
    namespace: String,
    boot: String,
    /// Tells our subscriptions from those of other processes.
    process: String,
    writer: Keeper,
    reader: Keeper,
    kicks: mpsc::Sender<()>,
    orders: mpsc::Sender<Order>,
    seats: Mutex<Vec<Weak<Seat>>>,
    /// Whether the writer was asked to fill seats and has not answered yet.
    serving: AtomicBool,
    /// Readers that follow the log.
    followers: AtomicUsize,
    changes: watch::Sender<()>,
    /// Whether the leases could be renewed when that was last tried.
    up: watch::Sender<bool>,
    appended: AtomicUsize,
}

impl Store {
    fn open(path: PathBuf, namespace: String) -> Result<Arc<Store>, QueueError> {
        schema::prepare(&path)?;
        let keep = |name| Keeper::start(name, &path, schema::connect(&path)?);
        let (kicks, kicked) = mpsc::channel();
        let (orders, ordered) = mpsc::channel();
        let store = Arc::new(Store {
            namespace,
            boot: clock::boot_id()?,
            process: Uuid::new_v4().to_string(),
            writer: keep("queue-write")?,
            reader: keep("queue-read")?,
            kicks,
            orders,
            seats: Mutex::default(),
            serving: AtomicBool::new(false),
            followers: AtomicUsize::new(0),
            changes: watch::Sender::new(()),
            up: watch::Sender::new(true),
            appended: AtomicUsize::new(0),
        });
        watcher::start(&store, schema::connect(&path)?, kicked)?;
        pulse::start(&store, schema::connect(&path)?, ordered, path)?;
        Ok(store)
    }

    /// Have the watcher look now.
    fn kick(&self) {
        // It ends only with the store.
        let _ = self.kicks.send(());
    }

    /// Hand something to the pulse.
    fn order(&self, order: Order) {
        // It ends only with the store.
        let _ = self.orders.send(order);
    }

    /// Whoever has not been dropped yet.
    fn seats(&self) -> Vec<Arc<Seat>> {
        let mut seats = lock(&self.seats);
        seats.retain(|seat| seat.strong_count() > 0);
        seats.iter().filter_map(Weak::upgrade).collect()
    }

    fn is_followed(&self) -> bool {
        self.followers.load(Ordering::Relaxed) > 0
    }
}

/// A thread that panicked while it held the lock left nothing half done: each holder makes one assignment or push.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
