//! What this worker knows of the log at any moment: which jobs are to be cancelled, and how steps ended that went on
//! without their message. Folded before the first job is taken, followed from then on.

mod builds;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use imagewright_common::backoff::jitter;
use imagewright_common::event::{Event, What};
use imagewright_common::job::Message;
use imagewright_common::queue::{Log, QueueError, Until};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use uuid::Uuid;

use self::builds::Builds;
use crate::verdict::Before;

/// How far back the log is folded at start. A job that nobody touched for longer is past its deadline.
const WINDOW: SignedDuration = SignedDuration::from_hours(25);

/// The follower begins this much before the end of the fold: nothing falls between the two.
const OVERLAP: SignedDuration = SignedDuration::from_mins(2);

/// How long the end of a step is remembered for a message that may have been settled elsewhere.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Remembered steps that are not worth looking through.
const SWEEP_MIN: usize = 1000;

const AGAIN: Duration = Duration::from_secs(1);

/// How a step that went on without its message stands, as far as was heard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Detached {
    /// Nothing is known of it.
    Unheard,
    /// Whoever has it has not said how it ended; last heard of then.
    GoesOn(Instant),
    /// It was given up without a fault of the job.
    HandedBack,
    /// It failed, and is to be tried again.
    Failed { attempt: u32, until: Timestamp, error: String },
    /// The job ended with it.
    Ended(What),
}

pub(crate) struct Ledger {
    state: Mutex<State>,
    /// Moved with each request to cancel.
    requested: watch::Sender<()>,
    /// Requests as they come, for jobs that nobody has in hand.
    requests: mpsc::UnboundedSender<Event>,
}

#[derive(Default)]
struct State {
    /// Jobs to be cancelled, and which run of them.
    wanted: HashMap<Uuid, u32>,
    /// Those of them that have ended.
    ended: HashSet<Uuid>,
    detached: HashMap<Uuid, Entry>,
    /// When to look through those next for what nobody needs any more.
    sweep_at: usize,
    /// Prunes that wait, and until when.
    prunes: HashMap<Uuid, Timestamp>,
    /// Jobs that began alone, and were not heard of again by whoever had them.
    alone: HashMap<Uuid, Alone>,
    builds: Builds,
}

struct Alone {
    run: u32,
    by: String,
    /// Each by its moment: what the fold at start has read, the follower reads again.
    starts: BTreeSet<Timestamp>,
}

struct Entry {
    run: u32,
    by: String,
    stands: Detached,
    since: Instant,
}

impl Ledger {
    /// An empty ledger, and the requests that will be heard by [`Ledger::follow`].
    pub(crate) fn new() -> (Ledger, mpsc::UnboundedReceiver<Event>) {
        let (requests, heard) = mpsc::unbounded_channel();
        (Ledger { state: Mutex::default(), requested: watch::Sender::new(()), requests }, heard)
    }

    /// Fold what the log tells so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(crate) async fn catch_up(&self, log: &dyn Log) -> Result<(), QueueError> {
        let since = Timestamp::now().saturating_sub(WINDOW).unwrap_or(Timestamp::MIN);
        let mut reader = log.read(since, Until::Now).await?;
        let mut asked = Vec::new();
        while let Some(event) = reader.next().await? {
            if self.take(&event) {
                asked.push(event);
            }
        }
        let mut state = self.state();
        state.detached.retain(|_, entry| !matches!(entry.stands, Detached::Ended(_)));
        asked.retain(|event| Uuid::parse_str(&event.id).is_ok_and(|job| !state.ended.contains(&job)));
        drop(state);
        asked.into_iter().for_each(|event| drop(self.requests.send(event)));
        Ok(())
    }

    /// Hear what is said from now on, for ever.
    pub(crate) async fn follow(self: Arc<Self>, log: Arc<dyn Log>) {
        let mut since = Timestamp::now();
        loop {
            if let Err(error) = self.listen(&*log, &mut since).await {
                tracing::warn!(%error, "the log cannot be followed; trying again");
            }
            sleep(jitter(AGAIN)).await;
        }
    }

    async fn listen(&self, log: &dyn Log, since: &mut Timestamp) -> Result<(), QueueError> {
        let begin = since.saturating_sub(OVERLAP).unwrap_or(Timestamp::MIN);
        let mut reader = log.read(begin, Until::Ever).await?;
        while let Some(event) = reader.next().await? {
            *since = Timestamp::now();
            if self.take(&event) {
                drop(self.requests.send(event));
            }
        }
        Ok(())
    }

    /// Whether the job, or the one that enqueued it, is to be cancelled.
    pub(crate) fn is_wanted(&self, message: &Message) -> bool {
        let state = self.state();
        state.wanted.get(&message.id) == Some(&message.run())
            || message.parent.is_some_and(|parent| state.wanted.contains_key(&parent))
    }

    /// Returns once the job is to be cancelled.
    pub(crate) async fn wanted(&self, message: &Message) {
        let mut requested = self.requested.subscribe();
        while !self.is_wanted(message) {
            if requested.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether a job that is to be cancelled has ended, one way or the other.
    pub(crate) fn has_ended(&self, job: Uuid) -> bool {
        self.state().ended.contains(&job)
    }

    /// How the step of this job stands that went on without its message.
    pub(crate) fn detached(&self, message: &Message) -> Detached {
        let state = self.state();
        let entry = state.detached.get(&message.id).filter(|entry| entry.run == message.run());
        entry.map_or(Detached::Unheard, |entry| entry.stands.clone())
    }

    /// How many workers began with the job alone, one after the other, and said nothing more of it.
    pub(crate) fn starts_alone(&self, message: &Message) -> u32 {
        let state = self.state();
        state
            .alone
            .get(&message.id)
            .filter(|alone| alone.run == message.run())
            .map_or(0, |alone| u32::try_from(alone.starts.len()).unwrap_or(u32::MAX))
    }

    /// How this run of a build ended before.
    pub(crate) fn built(&self, message: &Message) -> Option<Before> {
        self.state().builds.end(message)
    }

    /// Until when a prune waits that nobody has in hand.
    pub(crate) fn waits_until(&self, job: Uuid) -> Option<Timestamp> {
        self.state().prunes.get(&job).copied()
    }

    /// Each holder leaves it whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it is a request that was not there before.
    fn take(&self, event: &Event) -> bool {
        let Ok(job) = Uuid::parse_str(&event.id) else { return false };
        let mut state = self.state();
        state.note_wait(job, event);
        state.note_detached(job, event);
        state.note_alone(job, event);
        state.builds.note(job, event);
        match &event.what {
            What::CancelRequested => {
                let is_new = state.wanted.insert(job, event.run) != Some(event.run);
                if is_new {
                    state.ended.remove(&job);
                    drop(state);
                    self.requested.send_replace(());
                }
                is_new
            }
            What::Succeeded { .. } | What::Failed { .. } | What::Cancelled => {
                if state.wanted.get(&job) == Some(&event.run) {
                    state.ended.insert(job);
                }
                false
            }
            What::Queued
            | What::Started { .. }
            | What::Waiting { .. }
            | What::Retrying { .. }
            | What::Warning { .. }
            | What::Output { .. }
            | What::Progress { .. } => false,
        }
    }
}

impl State {
    fn note_wait(&mut self, job: Uuid, event: &Event) {
        match &event.what {
            What::Waiting { until, .. } | What::Retrying { until, .. } if event.kind.as_deref() == Some("prune") => {
                self.prunes.insert(job, *until);
            }
            What::Warning { .. } | What::Output { .. } | What::Progress { .. } | What::CancelRequested => {}
            What::Queued
            | What::Started { .. }
            | What::Waiting { .. }
            | What::Retrying { .. }
            | What::Succeeded { .. }
            | What::Failed { .. }
            | What::Cancelled => drop(self.prunes.remove(&job)),
        }
    }

    fn note_alone(&mut self, job: Uuid, event: &Event) {
        match &event.what {
            What::Started { alone: true, .. } => {
                let before = self.alone.remove(&job).filter(|alone| alone.run == event.run);
                let mut starts = before.map(|alone| alone.starts).unwrap_or_default();
                starts.insert(event.at);
                self.alone.insert(job, Alone { run: event.run, by: event.by.clone(), starts });
            }
            What::Succeeded { .. } | What::Failed { .. } | What::Cancelled => drop(self.alone.remove(&job)),
            // Whoever says how it went on is alive.
            What::Retrying { .. } | What::Waiting { detached: false, .. } => {
                if self.alone.get(&job).is_some_and(|alone| alone.by == event.by) {
                    self.alone.remove(&job);
                }
            }
            What::Queued
            | What::Started { .. }
            | What::Waiting { .. }
            | What::CancelRequested
            | What::Warning { .. }
            | What::Output { .. }
            | What::Progress { .. } => {}
        }
    }

    fn note_detached(&mut self, job: Uuid, event: &Event) {
        let now = Instant::now();
        if let What::Waiting { detached: true, .. } = event.what {
            if self.detached.len() >= self.sweep_at {
                self.detached.retain(|_, entry| entry.is_needed(now));
                self.sweep_at = SWEEP_MIN.max(self.detached.len() * 2);
            }
            let entry = Entry { run: event.run, by: event.by.clone(), stands: Detached::GoesOn(now), since: now };
            self.detached.insert(job, entry);
            return;
        }
        let Some(entry) = self.detached.get_mut(&job).filter(|entry| entry.run == event.run) else { return };
        if matches!(entry.stands, Detached::Ended(_)) {
            return;
        }
        let stands = match &event.what {
            what if what.is_terminal() => Detached::Ended(what.clone()),
            // What others say of it, they say who look at it from outside.
            _ if event.by != entry.by => return,
            What::Waiting { .. } => Detached::HandedBack,
            What::Retrying { until, error, attempt, .. } => {
                Detached::Failed { attempt: *attempt, until: *until, error: error.clone() }
            }
            What::Queued
            | What::Started { .. }
            | What::Succeeded { .. }
            | What::Failed { .. }
            | What::Cancelled
            | What::CancelRequested
            | What::Warning { .. }
            | What::Output { .. }
            | What::Progress { .. } => return,
        };
        (entry.stands, entry.since) = (stands, now);
    }
}

impl Entry {
    fn is_needed(&self, now: Instant) -> bool {
        match self.stands {
            Detached::Ended(_) | Detached::Unheard => now.duration_since(self.since) < REMEMBERED,
            Detached::GoesOn(_) | Detached::HandedBack | Detached::Failed { .. } => true,
        }
    }
}

#[cfg(test)]
mod tests;
