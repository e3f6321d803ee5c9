//! The seam: what a job queue must do, said once. RabbitMQ and SQLite do it; everything else goes through here.
//!
//! At least once: a job taken and not settled comes back. Accepted means durable: [`Queue::publish`] returns when the
//! queue has taken responsibility. A settled delivery whose acknowledgement is lost comes back as well, so every step
//! may run twice.

mod address;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod rabbitmq;
mod sqlite;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::event::Event;
use crate::job::{Kind, Lane};
pub use address::{Address, AddressError, AmqpHost, Tls, state_directory};

/// The three views of one open queue.
#[derive(Clone)]
pub struct Backend {
    /// Jobs in and out.
    pub queue: Arc<dyn Queue>,
    /// The log of transitions, and live progress.
    pub log: Arc<dyn Log>,
    /// What an operator looks at.
    pub desk: Arc<dyn Desk>,
    /// Whether jobs can be taken at present, as far as those who take them have noticed; changes as that does.
    pub up: watch::Receiver<bool>,
}

/// How an open queue behaves when its server is away.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// Give up after this long; for commands.
    For(Duration),
    /// Reconnect until it is back; for workers.
    Endless,
}

/// Open the queue at `address` and declare all that belongs to it. `role` names the connection (`imagewright-worker`).
///
/// # Errors
/// [`QueueError::Unavailable`] when the server cannot be reached, [`QueueError::Refused`] when it does not accept us
/// (credentials, permissions, version).
pub async fn open(address: &Address, namespace: &str, role: &str, patience: Patience) -> Result<Backend, QueueError> {
    check_namespace(namespace)?;
    match address {
        Address::Amqp(hosts) => rabbitmq::open(hosts, namespace, role, patience).await,
        Address::Sqlite(path) => sqlite::open(path, namespace).await,
    }
}

/// Every name that begins with the namespace fits AMQP's 255 bytes.
fn check_namespace(namespace: &str) -> Result<(), QueueError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=60).contains(&namespace.len()) && namespace.chars().all(fits) {
        return Ok(());
    }
    Err(QueueError::Refused("a namespace is 1 to 60 letters, digits, '-', '_' or '.'".to_owned()))
}

/// Jobs in and out.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Put a new job on its lane. Returns once the queue answers for it.
    async fn publish(&self, lane: Lane, id: &str, payload: &[u8]) -> Result<(), QueueError>;

    /// Take jobs from one place; at most `in_flight` of them are unsettled at any time.
    async fn consume(&self, from: Tap, in_flight: u16) -> Result<Box<dyn Consumer>, QueueError>;

    /// Say goodbye to a server, at the end of the process. What is in hand comes back, counted as a crash.
    async fn close(&self) {}
}

/// Where a consumer takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tap {
    /// New jobs of a lane.
    New(Lane),
    /// Jobs of a lane that come back: waited, retried, handed back.
    Started(Lane),
    /// Jobs that crashed too often, and messages that no lane wanted.
    Lost,
}

/// A running subscription. Dropping it gives unsettled deliveries back, counted; [`Consumer::stop`] gives back those
/// not yet handed out, uncounted.
#[async_trait]
pub trait Consumer: Send {
    /// The next job, whenever it comes. Cancel-safe.
    async fn next(&mut self) -> Result<Delivery, QueueError>;

    /// Take no more, and hand back what was sent ahead but not handed out. Deliveries in hand can still be settled.
    async fn stop(&mut self) -> Result<(), QueueError>;
}

/// One job in hand. It must be settled, once.
pub struct Delivery {
    /// The message.
    pub payload: Vec<u8>,
    /// Where it was found.
    pub from: Tap,
    /// What has been counted about it.
    pub counts: Counts,
    receipt: Box<dyn Receipt>,
}

/// What is counted about a job, outside its message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Failed attempts so far.
    pub attempt: u32,
    /// Times it was taken and never settled: its process died, or the connection did. Innocent jobs have such losses too,
    /// wherever they were in hand beside others.
    pub crashes: u32,
    /// It was put back while its step went on elsewhere; the log tells how that ended.
    pub detached: bool,
    /// When it was first seen by this queue.
    pub first_at: Option<Timestamp>,
    /// Why it was last put back, for the report if it is buried.
    pub last_error: Option<String>,
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Finished; never seen again.
    Done,
    /// Goes on with a new payload, its counts afresh, not before `after`.
    Continue {
        /// The message from now on.
        payload: Vec<u8>,
        /// Not before.
        after: Duration,
    },
    /// Failed: counts as an attempt, again not before `after`.
    Retry {
        /// Not before.
        after: Duration,
        /// What went wrong.
        error: String,
    },
    /// Handed back: counts as nothing, again not before `after` (zero at a shutdown).
    Release {
        /// Not before.
        after: Duration,
    },
    /// Not begun: stays where it was found, behind the others there, not before `after`; counts as nothing.
    Defer {
        /// Not before.
        after: Duration,
    },
    /// Found where it does not belong: to where it does, at once; counts as nothing.
    Move {
        /// Where it belongs.
        to: Tap,
    },
    /// To the dead, for a human.
    Bury(Burial),
}

/// Why a job is buried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Burial {
    /// One line for a human.
    pub reason: String,
    /// The field of the message at fault, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The last error, where it says more than the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The cloud's request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Who buried it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
}

impl Delivery {
    /// Decide what becomes of it. When this fails, or the process dies first, the job comes back.
    ///
    /// # Errors
    /// [`QueueError::Stale`] when the delivery was already given to somebody else: say nothing further about it.
    pub async fn settle(self, verdict: Verdict) -> Result<(), QueueError> {
        self.receipt.settle(self.payload, &self.counts, verdict).await
    }
}

#[async_trait]
trait Receipt: Send + Sync {
    async fn settle(self: Box<Self>, payload: Vec<u8>, counts: &Counts, verdict: Verdict) -> Result<(), QueueError>;
}

/// The log of transitions, and live progress.
#[async_trait]
pub trait Log: Send + Sync {
    /// Write an event for good, and tell passers-by. Returns once it is safe.
    async fn append(&self, event: &Event) -> Result<(), QueueError>;

    /// Tell passers-by only; best effort.
    async fn announce(&self, event: &Event);

    /// Read the log from `since` on.
    async fn read(&self, since: Timestamp, until: Until) -> Result<Box<dyn Reader>, QueueError> {
        self.read_about(About::All, since, until).await
    }

    /// Read the log from `since` on to what is its end now. A queue whose log is slow to read leaves out the oldest entries.
    async fn read_lately(&self, since: Timestamp) -> Result<Lately, QueueError> {
        Ok(Lately { reader: self.read(since, Until::Now).await?, newest_only: None })
    }

    /// Read what is said from `since` on about some jobs; most of the rest is passed over unread, which is quick.
    async fn read_about(&self, about: About, since: Timestamp, until: Until) -> Result<Box<dyn Reader>, QueueError>;
}

/// A reader of what the log tells lately.
pub struct Lately {
    /// The reader.
    pub reader: Box<dyn Reader>,
    /// It begins later than it was asked to: it hands on no more than this many entries.
    pub newest_only: Option<u32>,
}

/// What a reader wants to hear of.
#[derive(Clone, Debug)]
pub enum About {
    /// Every job.
    All,
    /// These jobs, by id: their events, and those of other jobs that name them, as parents and children do.
    Jobs(Vec<String>),
}

impl About {
    /// Whether an event may be of interest, by its JSON.
    fn may_be(&self, event: &[u8]) -> bool {
        match self {
            About::All => true,
            About::Jobs(ids) => std::str::from_utf8(event).is_ok_and(|event| ids.iter().any(|id| event.contains(id))),
        }
    }
}

/// How far a reader goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// To what is the end of the log now.
    Now,
    /// For ever.
    Ever,
    /// For ever, progress included.
    Forever,
}

/// A reader of events, in log order. Progress is mixed in as it comes.
#[async_trait]
pub trait Reader: Send {
    /// The next event; none at the end of a reader with [`Until::Now`]. Cancel-safe.
    async fn next(&mut self) -> Result<Option<Event>, QueueError>;
}

/// What an operator looks at.
#[async_trait]
pub trait Desk: Send + Sync {
    /// Every queue of the namespace with what lies in it, in a fixed order.
    async fn depths(&self) -> Result<Vec<Depth>, QueueError>;

    /// The dead, oldest first. Looking changes nothing.
    async fn dead(&self) -> Result<Vec<Dead>, QueueError>;

    /// Decide what becomes of each of the dead; those not kept, oldest first. A job to be requeued is on its lane before
    /// it leaves the dead: whoever is interrupted leaves it on both, never on neither.
    async fn judge_dead(&self, judge: Judge) -> Result<Vec<Dead>, QueueError>;

    /// The kinds that are paused.
    async fn paused(&self) -> Result<Vec<Kind>, QueueError>;

    /// From now on no worker takes new jobs of `kind`, whenever it starts; what has begun goes on.
    async fn pause(&self, kind: Kind) -> Result<(), QueueError>;

    /// The end of a pause.
    async fn resume(&self, kind: Kind) -> Result<(), QueueError>;
}

/// Decides about one of the dead.
pub type Judge = Box<dyn Fn(&Dead) -> Fate + Send + Sync>;

/// What becomes of a buried job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It goes back to its lane as a new job, its counts afresh.
    Requeue {
        /// Where to.
        lane: Lane,
        /// Its id.
        id: String,
        /// Its message from now on.
        payload: Vec<u8>,
    },
    /// It is removed for good.
    Discard,
}

/// One queue and what lies in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Depth {
    /// Its name.
    pub queue: String,
    /// Jobs ready to be taken.
    pub ready: u64,
    /// Subscriptions.
    pub consumers: u64,
}

/// A buried job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dead {
    /// The message as it was.
    pub payload: Vec<u8>,
    /// Failed attempts.
    pub attempts: u32,
    /// When it was first seen.
    pub first_at: Option<Timestamp>,
    /// When it was buried.
    pub last_at: Option<Timestamp>,
    /// Why.
    pub burial: Burial,
}

/// What can go wrong with a queue, by what to do next.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Nothing happened; safe to repeat.
    #[error("queue unreachable: {0}")]
    Unavailable(String),
    /// It may have happened; repeating may duplicate, which a job survives.
    #[error("queue did not confirm: {0}")]
    Unknown(String),
    /// There was nowhere to put it; what is missing is declared before the next try.
    #[error("queue is missing: {0}")]
    Returned(String),
    /// It will not happen like this: credentials, permissions, version, a damaged file.
    #[error("queue refused: {0}")]
    Refused(String),
    /// The delivery is somebody else's now.
    #[error("delivery was already given to another worker")]
    Stale,
}
