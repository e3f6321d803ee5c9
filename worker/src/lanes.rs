//! Taking jobs: a new one only when there is room for its work, those that come back always.

use std::sync::Arc;
use std::time::Duration;

use imagewright_common::backoff::jitter;
use imagewright_common::job::{Kind, Lane};
use imagewright_common::queue::{Consumer, QueueError, Tap, Verdict};
use imagewright_common::wire::DecodeError;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::handle::Desk;
use crate::pauses::Pauses;
use crate::verdict::CRASHES_MAX;

/// Jobs that came back, looked at at once per lane. Looking is short.
const LOOKS: u16 = 32;

/// How long a job that was sent ahead waits here for room before it is handed back.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Time between tries while the queue is away, at least.
const AWAY_PAUSE: Duration = Duration::from_secs(1);

/// What every taker shares.
#[derive(Clone)]
pub(crate) struct Taker {
    pub(crate) desk: Arc<Desk>,
    pub(crate) tasks: TaskTracker,
    /// True once no more jobs are to be taken.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) pauses: Pauses,
}

impl Taker {
    /// Take by `taking`, again and again while the queue is away: only its refusal ends that.
    pub(crate) async fn persist<F>(self, taking: impl Fn(Taker) -> F) -> Result<(), QueueError>
    where
        F: Future<Output = Result<(), QueueError>>,
    {
        loop {
            match taking(self.clone()).await {
                Ok(()) => return Ok(()),
                Err(error @ QueueError::Refused(_)) => return Err(error),
                Err(error) => tracing::warn!(%error, "cannot take jobs; trying again"),
            }
            let mut stop = self.stop.clone();
            if unless(&mut stop, sleep(jitter(AWAY_PAUSE))).await.is_none() {
                return Ok(());
            }
        }
    }

    /// Take new jobs of a lane while there is room, until told to stop.
    pub(crate) async fn new_jobs(mut self, lane: Lane, room: Arc<Semaphore>) -> Result<(), QueueError> {
        let mut stop = self.stop.clone();
        loop {
            let mut pauses = self.pauses.clone();
            let opportunity = async {
                pauses.ended(lane.kind).await;
                free_places(&room).await
            };
            let Some(free) = self.unless_stopped(opportunity).await else { return Ok(()) };
            let consume = self.desk.queue.consume(Tap::New(lane), free);
            let Some(consumer) = unless(&mut stop, consume).await else { return Ok(()) };
            let mut consumer = consumer?;
            self.while_room(&mut *consumer, lane.kind, &room).await?;
            consumer.stop().await?;
        }
    }

    /// A place is taken only once there is a job for it: a lane without jobs keeps no place from the others.
    async fn while_room(
        &mut self,
        consumer: &mut dyn Consumer,
        kind: Kind,
        room: &Arc<Semaphore>,
    ) -> Result<(), QueueError> {
        let mut pauses = self.pauses.clone();
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    () = pauses.begun(kind) => None,
                    delivery = consumer.next() => Some(delivery),
                }
            };
            let Some(Some(delivery)) = self.unless_stopped(next).await else { return Ok(()) };
            let delivery = delivery?;
            let place = timeout(ROOM_WAIT, room.clone().acquire_owned());
            let Some(Ok(Ok(place))) = self.unless_stopped(place).await else {
                return match delivery.settle(Verdict::Release { after: Duration::ZERO }).await {
                    Err(QueueError::Stale) => Ok(()),
                    settled => settled,
                };
            };
            let desk = self.desk.clone();
            self.tasks.spawn(async move {
                desk.handle(delivery).await;
                drop(place);
            });
        }
    }

    /// Take jobs of a lane that come back.
    pub(crate) async fn returning_jobs(mut self, lane: Lane) -> Result<(), QueueError> {
        let mut consumer = self.desk.queue.consume(Tap::Started(lane), LOOKS).await?;
        while let Some(delivery) = self.unless_stopped(consumer.next()).await {
            let (desk, delivery) = (self.desk.clone(), delivery?);
            self.tasks.spawn(desk.handle(delivery));
        }
        consumer.stop().await
    }

    /// Announce and bury what the broker gave up, or nobody wanted.
    pub(crate) async fn lost_jobs(mut self) -> Result<(), QueueError> {
        let mut consumer = self.desk.queue.consume(Tap::Lost, 1).await?;
        while let Some(delivery) = self.unless_stopped(consumer.next()).await {
            let delivery = delivery?;
            let readable = imagewright_common::wire::decode(&delivery.payload, jiff::Timestamp::now());
            let refusal = match readable {
                Ok(_) if delivery.counts.crashes < CRASHES_MAX => None,
                Ok(_) => Some(DecodeError {
                    field: "message".to_owned(),
                    reason: format!(
                        "it crashes workers: it was lost {} times with its worker",
                        delivery.counts.crashes
                    ),
                }),
                Err(error) => Some(error),
            };
            let settled = match refusal {
                Some(refusal) => self.desk.bury_unreadable(delivery, refusal).await,
                None => {
                    self.desk.clone().handle(delivery).await;
                    Ok(())
                }
            };
            if let Err(error) = settled {
                tracing::debug!(%error, "a lost message comes back");
            }
        }
        consumer.stop().await
    }

    async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        unless(&mut self.stop, work).await
    }
}

async fn unless<T>(stop: &mut watch::Receiver<bool>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        _ = stop.wait_for(|stop| *stop) => None,
        done = work => Some(done),
    }
}

/// How many places are free, once there is one.
async fn free_places(room: &Arc<Semaphore>) -> u16 {
    drop(room.acquire().await);
    u16::try_from(room.available_permits()).unwrap_or(u16::MAX).max(1)
}
