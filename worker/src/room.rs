//! Room for work: jobs at once per kind, transfers at once per worker and per cloud.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use imagewright_common::job::{CloudName, Kind};
use imagewright_common::store::upload::{Gate, Permit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::options::Concurrency;

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

impl Gate for Room {
    fn enter(&self, cloud: &CloudName) -> Option<Permit> {
        let worker = self.transfers.clone().try_acquire_owned().ok()?;
        let cloud = self.cloud(cloud).try_acquire_owned().ok()?;
        Some(Box::new(Transfer { _worker: worker, _cloud: cloud }))
    }
}
