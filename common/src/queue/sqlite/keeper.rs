//! A thread that keeps one connection and does, in order, what it is handed.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::failure::{explain, explain_commit, is_busy};
use crate::queue::QueueError;

/// How long a lock held by somebody else is waited for before the caller hears of it: commands answer within 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// The same when work is lost with the answer.
const PATIENCE_SETTLING: Duration = Duration::from_secs(60);

/// Between two tries, beyond SQLite's own waiting.
const PAUSE: Duration = Duration::from_millis(20);

/// What a confirmed change survives.
#[derive(Clone, Copy)]
pub(super) enum Promise {
    /// The machine: it is on the disk.
    Durable,
    /// The process. Enough for what means nothing after a reboot; on the disk with the next durable change.
    Fleeting,
}

impl Promise {
    fn synchronous(self) -> &'static str {
        match self {
            Promise::Durable => "FULL",
            Promise::Fleeting => "NORMAL",
        }
    }
}

type Task = Box<dyn FnOnce(&mut Connection) + Send>;

/// Ends, once everything handed to it is done, when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Keeper {
    path: PathBuf,
    tasks: mpsc::Sender<Task>,
}

impl Keeper {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn start(name: &str, path: &Path, mut connection: Connection) -> Result<Keeper, QueueError> {
        let (tasks, inbox) = mpsc::channel::<Task>();
        start_thread(name, move || {
            for task in inbox {
                task(&mut connection);
            }
        })?;
        Ok(Keeper { path: path.to_owned(), tasks })
    }

    /// Hand over a task without waiting for it.
    pub(super) fn tell(&self, task: impl FnOnce(&mut Connection) + Send + 'static) -> Result<(), QueueError> {
        self.tasks.send(Box::new(task)).map_err(|_| ended())
    }

    /// One transaction, repeated while the file is locked. It is carried out even if nobody waits for the answer.
    pub(super) async fn write<T, F>(&self, change: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let path = self.path.clone();
        self.ask(move |connection| write_within(PATIENCE, Promise::Durable, &path, connection, change)).await
    }

    /// The same for what is not lightly given up.
    pub(super) async fn settle<T, F>(&self, change: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let path = self.path.clone();
        self.ask(move |connection| write_within(PATIENCE_SETTLING, Promise::Durable, &path, connection, change)).await
    }

    /// One consistent look.
    pub(super) async fn read<T, F>(&self, look: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnMut(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let path = self.path.clone();
        let mut look = look;
        self.ask(move |connection| patiently(&path, || look(&connection.transaction()?))).await
    }

    async fn ask<T, F>(&self, task: F) -> Result<T, QueueError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Connection) -> Result<T, QueueError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.tell(move |connection| {
            let _ = answer.send(task(connection));
        })?;
        answered.await.map_err(|_| ended())?
    }
}

fn ended() -> QueueError {
    QueueError::Unavailable("the thread of the embedded queue has ended; restart this program".to_owned())
}

/// A thread of the queue.
pub(super) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), QueueError> {
    let started = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    started.map(drop).map_err(|error| QueueError::Unavailable(format!("no thread for the embedded queue: {error}")))
}

/// One transaction, repeated while the file is locked.
pub(super) fn write_now<T>(
    promise: Promise,
    path: &Path,
    connection: &mut Connection,
    change: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, QueueError> {
    write_within(PATIENCE, promise, path, connection, change)
}

fn write_within<T>(
    patience: Duration,
    promise: Promise,
    path: &Path,
    connection: &mut Connection,
    mut change: impl FnMut(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, QueueError> {
    let (tx, value) = within(patience, path, || {
        connection.pragma_update(None, "synchronous", promise.synchronous())?;
        // The borrow of a transaction cannot leave a closure that may run again, hence the unchecked one; it is the
        // only one of its connection all the same.
        let tx = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        let value = change(&tx)?;
        Ok((tx, value))
    })?;
    tx.commit().map_err(|error| explain_commit(path, &error))?;
    Ok(value)
}

/// Do it, again while somebody else holds the lock.
pub(super) fn patiently<T>(path: &Path, attempt: impl FnMut() -> rusqlite::Result<T>) -> Result<T, QueueError> {
    within(PATIENCE, path, attempt)
}

fn within<T>(
    patience: Duration,
    path: &Path,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> Result<T, QueueError> {
    let began = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_busy(&error) && began.elapsed() < patience => std::thread::sleep(PAUSE),
            Err(error) => return Err(explain(path, &error)),
            Ok(value) => return Ok(value),
        }
    }
}
