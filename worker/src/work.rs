//! One step of a job, run with its message in hand for as long as a delivery may be held, and without it from then on.

use std::future::pending;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use imagewright_common::event::What;
use imagewright_common::job::{Kind, Message};
use imagewright_common::queue::{Counts, Delivery, QueueError, Tap, Verdict};
use imagewright_common::store::Observer;
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep};
use uuid::Uuid;

use crate::cancel::Cancelled;
use crate::handle::{Desk, LOOK_AGAIN};
use crate::steps;
use crate::verdict::{Ended, later};

/// Longest that a delivery is held while a step works. A longer step goes on without it, as something that the cloud is
/// doing; the job itself comes back to look. Where the next step is told by the message alone, as it is for jobs of many
/// short steps, a slow cloud is waited for: far less than a broker waits for an acknowledgement (30 minutes by default).
fn hold(kind: Kind) -> Duration {
    match kind {
        Kind::Upload | Kind::BaseImage | Kind::Prune => Duration::from_secs(20),
        Kind::Snapshot | Kind::Build => Duration::from_secs(5 * 60),
    }
}

/// Time between reports of progress.
const PROGRESS: Duration = Duration::from_secs(2);

/// A job at work in this process.
pub(crate) struct Job {
    pub(crate) message: Arc<Message>,
    pub(crate) counts: Counts,
    /// Nothing else runs here meanwhile.
    pub(crate) alone: bool,
    pub(crate) observer: Arc<Observer>,
    pub(crate) begun: Instant,
}

/// What ends the wait for a step.
enum Stop {
    Ended(Result<Ended, JoinError>),
    BreakOff(Why),
    Held,
}

/// What a step is broken off for.
#[derive(Clone, Copy)]
enum Why {
    HandBack,
    Cancel,
    /// The deadline of its job has passed.
    Late,
}

impl Desk {
    /// Run one step, and let it go on without the message if it takes long. That a step runs alone is in the log before
    /// it begins: whoever gets the job after a crash goes by that.
    pub(crate) async fn work(
        self: &Arc<Self>,
        delivery: Delivery,
        message: Message,
        may_cancel: bool,
        alone: bool,
    ) -> Result<(), QueueError> {
        let job = Job {
            counts: delivery.counts.clone(),
            alone,
            observer: Arc::new(self.metrics.observer(message.spec.cloud())),
            message: Arc::new(message),
            begun: Instant::now(),
        };
        let _in_flight = self.metrics.begin(job.message.spec.kind());
        let is_said = alone || matches!(delivery.from, Tap::New(_));
        if is_said {
            self.journal.say(&job.message, What::Started { attempt: job.counts.attempt, alone }).await?;
        }
        let mut step = Step(tokio::spawn({
            let (desk, message, observer) = (self.clone(), job.message.clone(), job.observer.clone());
            async move {
                let ended = steps::advance(&desk.tools, &message, &observer).await;
                desk.metrics.took(message.spec.kind(), &observer);
                ended
            }
        }));
        let _progress = Step(tokio::spawn(self.clone().report(&job, is_said)));
        let hold = hold(job.message.spec.kind());
        match self.watch_over(&mut step, &job, may_cancel, Some(hold)).await {
            Stop::Ended(ended) => self.conclude(Some(delivery), &job, ended).await,
            Stop::BreakOff(why) => self.break_off(step, Some(delivery), &job, why).await,
            Stop::Held => self.go_on_detached(step, delivery, &job, may_cancel).await,
        }
    }

    async fn go_on_detached(
        self: &Arc<Self>,
        mut step: Step<Ended>,
        delivery: Delivery,
        job: &Job,
        may_cancel: bool,
    ) -> Result<(), QueueError> {
        let _here = Here::enter(self, job.message.id);
        let _beat = Step(tokio::spawn(self.clone().beat(job.message.clone(), job.counts.attempt)));
        let desk = self.clone();
        let (message, attempt) = (job.message.clone(), job.counts.attempt);
        let detaching = tokio::spawn(async move { desk.detach(delivery, &message, attempt).await });
        let stop = self.watch_over(&mut step, job, may_cancel, None).await;
        if let Ok(Err(error)) = detaching.await {
            tracing::debug!(%error, "the message could not be put back; it comes back by itself");
        }
        match stop {
            Stop::Ended(ended) => self.conclude(None, job, ended).await,
            Stop::BreakOff(why) => self.break_off(step, None, job, why).await,
            Stop::Held => self.break_off(step, None, job, Why::HandBack).await,
        }
    }

    async fn watch_over(&self, step: &mut Step<Ended>, job: &Job, may_cancel: bool, hold: Option<Duration>) -> Stop {
        let mut hand_back = self.hand_back.clone();
        let now = Timestamp::now();
        let left = Duration::try_from(job.message.deadline(now).duration_since(now)).unwrap_or_default();
        tokio::select! {
            ended = &mut step.0 => Stop::Ended(ended),
            () = told(&mut hand_back) => Stop::BreakOff(Why::HandBack),
            () = self.tools.ledger.wanted(&job.message), if may_cancel => Stop::BreakOff(Why::Cancel),
            () = sleep(left) => Stop::BreakOff(Why::Late),
            () = after(hold) => Stop::Held,
        }
    }

    /// Stop a step in its middle.
    async fn break_off(
        self: &Arc<Self>,
        step: Step<Ended>,
        delivery: Option<Delivery>,
        job: &Job,
        why: Why,
    ) -> Result<(), QueueError> {
        if let Some(ended) = step.stop().await {
            return self.conclude(delivery, job, Ok(ended)).await;
        }
        let Job { message, counts, .. } = job;
        let given_up = match why {
            Why::HandBack => "handed back by a worker that stops",
            Why::Late => "broken off: its deadline has passed",
            Why::Cancel => return self.cancel_broken_off(delivery, message, counts).await,
        };
        self.give_back(delivery, message, counts, Duration::ZERO, given_up.to_owned()).await
    }

    async fn cancel_broken_off(
        &self,
        delivery: Option<Delivery>,
        message: &Message,
        counts: &Counts,
    ) -> Result<(), QueueError> {
        match self.cancel(message, false).await? {
            Cancelled::Done => match delivery {
                Some(delivery) => delivery.settle(Verdict::Done).await,
                None => Ok(()),
            },
            Cancelled::Later { after, why } => self.give_back(delivery, message, counts, after, why).await,
            Cancelled::TooLate => {
                let why = "too late to cancel: its image is there".to_owned();
                self.give_back(delivery, message, counts, Duration::from_secs(1), why).await
            }
        }
    }

    async fn give_back(
        &self,
        delivery: Option<Delivery>,
        message: &Message,
        counts: &Counts,
        after: Duration,
        why: String,
    ) -> Result<(), QueueError> {
        let (until, attempt) = (later(Timestamp::now(), after), counts.attempt);
        self.journal.say(message, What::Waiting { until, why, attempt, detached: false }).await?;
        match delivery {
            Some(delivery) => delivery.settle(Verdict::Release { after }).await,
            None => Ok(()),
        }
    }

    /// Put the message back. Its step goes on here, and the log will tell how it ends.
    async fn detach(&self, mut delivery: Delivery, message: &Message, attempt: u32) -> Result<(), QueueError> {
        let until = later(Timestamp::now(), LOOK_AGAIN);
        let why = format!("the {} goes on", noun(message.spec.kind()));
        self.journal.say(message, What::Waiting { until, why, attempt, detached: true }).await?;
        delivery.counts.detached = true;
        delivery.settle(Verdict::Release { after: LOOK_AGAIN }).await
    }

    /// Where no cloud shows that a step goes on, the log does.
    async fn beat(self: Arc<Self>, message: Arc<Message>, attempt: u32) {
        if message.spec.kind().is_transfer() {
            return;
        }
        let mut ticks = interval_at(Instant::now() + LOOK_AGAIN, LOOK_AGAIN);
        loop {
            ticks.tick().await;
            let until = later(Timestamp::now(), LOOK_AGAIN);
            let why = format!("the {} goes on", noun(message.spec.kind()));
            if let Err(error) =
                self.journal.say_again(&message, What::Waiting { until, why, attempt, detached: true }).await
            {
                tracing::debug!(%error, "could not say that it goes on");
            }
        }
    }

    pub(crate) fn has_detached(&self, job: Uuid) -> bool {
        self.detached_here().contains(&job)
    }

    pub(crate) fn has_any_detached(&self) -> bool {
        !self.detached_here().is_empty()
    }

    fn detached_here(&self) -> MutexGuard<'_, std::collections::HashSet<Uuid>> {
        self.detached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tell how far a transfer is, and once, that it runs at all.
    fn report(self: Arc<Self>, job: &Job, is_said: bool) -> impl Future<Output = ()> + Send + 'static {
        let (message, observer, attempt) = (job.message.clone(), job.observer.clone(), job.counts.attempt);
        let mut said = is_said;
        async move {
            let mut ticks = interval(PROGRESS);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut before = 0;
            loop {
                ticks.tick().await;
                let (bytes, total) = observer.progress();
                if total == 0 {
                    continue;
                }
                if !said {
                    said = self.journal.say(&message, What::Started { attempt, alone: false }).await.is_ok();
                }
                let rate = bytes.saturating_sub(before) / PROGRESS.as_secs();
                before = bytes;
                self.journal.announce(&message, What::Progress { bytes, total, rate }).await;
            }
        }
    }
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Upload | Kind::BaseImage => "transfer",
        Kind::Prune => "pruning",
        Kind::Snapshot => "snapshot",
        Kind::Build => "build",
    }
}

async fn after(hold: Option<Duration>) {
    match hold {
        Some(hold) => sleep(hold).await,
        None => pending().await,
    }
}

async fn told(hand_back: &mut watch::Receiver<bool>) {
    if hand_back.wait_for(|now| *now).await.is_err() {
        pending::<()>().await;
    }
}

/// A task that ends with whoever waits for it.
struct Step<T>(JoinHandle<T>);

impl<T> Step<T> {
    /// End it, and wait until it has: nothing of it happens afterwards. Its result, if it was faster.
    async fn stop(mut self) -> Option<T> {
        self.0.abort();
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for Step<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a job as detached in this process while it lives.
struct Here<'a>(&'a Desk, Uuid);

impl Here<'_> {
    fn enter(desk: &Desk, job: Uuid) -> Here<'_> {
        desk.detached_here().insert(job);
        Here(desk, job)
    }
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        self.0.detached_here().remove(&self.1);
    }
}
