//! Room for work: jobs at once per kind, transfers at once per worker and per cloud.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use imagewright_common::job::{CloudName, Kind};
use imagewright_common::store::upload::{Gate, Permit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::options::Concurrency;

/// How long a job waits here for a transfer to end, before it goes back to the queue; less than a delivery is held.
const PATIENCE: Duration = Duration::from_secs(12);

pub(crate) struct Room {
    kinds: HashMap<Kind, Arc<Semaphore>>,
    transfers: Arc<Semaphore>,
    cloud_transfers: usize,
    clouds: Mutex<HashMap<String, Arc<Semaphore>>>,
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

    fn cloud(&self, cloud: &CloudName) -> Arc<Semaphore> {
        let mut clouds = self.clouds.lock().unwrap_or_else(PoisonError::into_inner);
        clouds.entry(cloud.to_string()).or_insert_with(|| Arc::new(Semaphore::new(self.cloud_transfers))).clone()
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
        let places = async {
            let cloud = self.cloud(cloud).acquire_owned().await.ok()?;
            let worker = self.transfers.clone().acquire_owned().await.ok()?;
            Some(Transfer { _worker: worker, _cloud: cloud })
        };
        timeout(PATIENCE, places).await.ok().flatten().map(|transfer| Box::new(transfer) as Permit)
    }
}
