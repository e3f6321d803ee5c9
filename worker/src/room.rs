//! Room for work: jobs at once per kind, transfers at once per worker and per cloud. Work that was begun goes before new
//! work, and a cloud whose places are taken keeps nobody from the others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use imagewright_common::backoff::jitter;
use imagewright_common::job::{CloudName, Kind};
use imagewright_common::store::upload::{Gate, Permit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::options::Concurrency;

/// How long a job waits here for a place at its cloud, and for one of this worker, before it goes back to the queue.
/// Less than a delivery is held.
const CLOUD_PATIENCE: Duration = Duration::from_secs(1);
const WORKER_PATIENCE: Duration = Duration::from_secs(12);

/// For so long after work that was begun found no place at a cloud, the next one is kept for it.
const KEPT: Duration = Duration::from_secs(8);

/// How long a job without a place stays away, before jitter: the more of them there were in the last minute, the longer.
const AWAY_MIN: Duration = Duration::from_secs(2);
const AWAY_MAX: Duration = Duration::from_secs(30);
const RECENTLY: Duration = Duration::from_secs(60);

/// How long a cloud that did not answer is left alone, and how long the one that then asks may take: longer than a call.
const SILENT: Duration = Duration::from_secs(5);
const PROBE: Duration = Duration::from_secs(70);

pub(crate) struct Room {
    kinds: HashMap<Kind, Arc<Semaphore>>,
    transfers: Arc<Semaphore>,
    cloud_transfers: usize,
    clouds: Mutex<HashMap<String, Cloud>>,
}

struct Cloud {
    places: Arc<Semaphore>,
    /// It does not answer, and until then nobody asks.
    silent_until: Option<Instant>,
    /// When work that was begun last found no place.
    refused: Option<Instant>,
    /// When new jobs were sent away [`RECENTLY`].
    sent_away: VecDeque<Instant>,
}

impl Room {
    pub(crate) fn new(concurrency: &Concurrency, cloud_transfers: u16) -> Room {
        let semaphore = |kind| Arc::new(Semaphore::new(usize::from(concurrency.of(kind))));
        Room {
            kinds: Kind::ALL.into_iter().map(|kind| (kind, semaphore(kind))).collect(),
            transfers: semaphore(Kind::Upload),
            cloud_transfers: usize::from(cloud_transfers),
            clouds: Mutex::new(HashMap::new()),
        }
    }

    /// The places for new jobs of a kind.
    pub(crate) fn of(&self, kind: Kind) -> Arc<Semaphore> {
        self.kinds.get(&kind).cloned().unwrap_or_else(|| Arc::new(Semaphore::new(1)))
    }

    /// Whether a new job for `cloud` must stay away for a while, and for how long.
    pub(crate) fn is_full(&self, cloud: &CloudName) -> Option<Duration> {
        let mut clouds = self.clouds();
        let cloud = self.cloud(&mut clouds, cloud.as_str());
        let is_kept = cloud.refused.is_some_and(|at| at.elapsed() < KEPT);
        (cloud.places.available_permits() == 0 || is_kept).then(|| cloud.send_away(Instant::now()))
    }

    /// Whether a job must stay away from `cloud` because it does not answer, and for how long. One is let through now and
    /// then; what comes of it holds for all.
    pub(crate) fn is_away(&self, cloud: &CloudName) -> Option<Duration> {
        let now = Instant::now();
        let mut clouds = self.clouds();
        let cloud = clouds.get_mut(cloud.as_str())?;
        if cloud.silent_until? > now {
            return Some(cloud.send_away(now));
        }
        cloud.silent_until = Some(now + PROBE);
        None
    }

    /// `cloud` has taken its time, and did not answer.
    pub(crate) fn is_silent(&self, cloud: &str) {
        tracing::info!(cloud, "it does not answer; one job at a time looks whether it does again");
        self.cloud(&mut self.clouds(), cloud).silent_until = Some(Instant::now() + SILENT);
    }

    /// `cloud` has answered.
    pub(crate) fn answers(&self, cloud: &CloudName) {
        if let Some(cloud) = self.clouds().get_mut(cloud.as_str()) {
            cloud.silent_until = None;
        }
    }

    fn clouds(&self) -> MutexGuard<'_, HashMap<String, Cloud>> {
        self.clouds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cloud<'a>(&self, clouds: &'a mut HashMap<String, Cloud>, name: &str) -> &'a mut Cloud {
        clouds.entry(name.to_owned()).or_insert_with(|| Cloud {
            places: Arc::new(Semaphore::new(self.cloud_transfers)),
            silent_until: None,
            refused: None,
            sent_away: VecDeque::new(),
        })
    }

    fn places(&self, cloud: &CloudName) -> Arc<Semaphore> {
        self.cloud(&mut self.clouds(), cloud.as_str()).places.clone()
    }

    fn was_refused(&self, cloud: &CloudName, refused: bool) {
        self.cloud(&mut self.clouds(), cloud.as_str()).refused = refused.then(Instant::now);
    }
}

impl Cloud {
    /// With n jobs away each comes back n times as rarely, so that looking for a place costs the same for any backlog.
    fn send_away(&mut self, now: Instant) -> Duration {
        while self.sent_away.front().is_some_and(|at| now.duration_since(*at) > RECENTLY) {
            self.sent_away.pop_front();
        }
        self.sent_away.push_back(now);
        let others = u32::try_from(self.sent_away.len()).unwrap_or(u32::MAX);
        jitter((AWAY_MIN + AWAY_MIN / 20 * others).min(AWAY_MAX))
    }
}

struct Transfer {
    _worker: OwnedSemaphorePermit,
    _cloud: OwnedSemaphorePermit,
}

#[async_trait]
impl Gate for Room {
    /// The cloud's place first: whoever waits for a busy cloud takes no place from the others.
    async fn enter(&self, cloud: &CloudName) -> Option<Permit> {
        let Ok(Ok(place)) = timeout(CLOUD_PATIENCE, self.places(cloud).acquire_owned()).await else {
            self.was_refused(cloud, true);
            return None;
        };
        self.was_refused(cloud, false);
        let worker = timeout(WORKER_PATIENCE, self.transfers.clone().acquire_owned()).await.ok()?.ok()?;
        Some(Box::new(Transfer { _worker: worker, _cloud: place }))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn room(cloud_transfers: u16) -> Room {
        Room::new(&"upload=3".parse().unwrap(), cloud_transfers)
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_cloud_turns_new_jobs_away_and_no_other_cloud_does() {
        let (room, full, free) = (room(1), "full".parse().unwrap(), "free".parse().unwrap());
        assert_eq!(room.is_full(&full), None);
        let permit = room.enter(&full).await;
        assert!(permit.is_some());
        assert!(room.is_full(&full).is_some());
        assert_eq!(room.is_full(&free), None);
        drop(permit);
        assert_eq!(room.is_full(&full), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_comes_free_is_kept_for_work_that_was_begun() {
        let (room, cloud) = (room(1), "cloud".parse().unwrap());
        let permit = room.enter(&cloud).await;
        assert!(room.enter(&cloud).await.is_none());
        drop(permit);
        assert!(room.is_full(&cloud).is_some());
        assert!(room.enter(&cloud).await.is_some());
        assert_eq!(room.is_full(&cloud), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cloud_that_does_not_answer_is_asked_by_one_job_at_a_time() {
        let (room, silent, other) = (room(1), "silent".parse().unwrap(), "other".parse().unwrap());
        assert_eq!((room.is_away(&silent), room.is_away(&other)), (None, None));
        room.is_silent("silent");
        assert!(room.is_away(&silent).is_some());
        assert_eq!(room.is_away(&other), None);
        advance(SILENT).await;
        assert_eq!(room.is_away(&silent), None, "one looks");
        assert!(room.is_away(&silent).is_some(), "the others wait for it");
        room.is_silent("silent");
        assert!(room.is_away(&silent).is_some());
        room.answers(&silent);
        assert_eq!(room.is_away(&silent), None);
    }

    #[test]
    fn the_more_jobs_are_away_the_longer_each_stays() {
        let now = Instant::now();
        let mut cloud = Cloud {
            places: Arc::new(Semaphore::new(1)),
            silent_until: None,
            refused: None,
            sent_away: VecDeque::new(),
        };
        assert!(cloud.send_away(now) <= AWAY_MIN * 3);
        let last = (0..2000).map(|_| cloud.send_away(now)).last().unwrap();
        assert!(last >= AWAY_MAX, "{last:?}");
        assert!(cloud.send_away(now + RECENTLY * 2) <= AWAY_MIN * 3);
    }
}
