//! Images on a cloud: made from a source exactly once, verified, found again, and kept to the newest few.
//!
//! The cloud is the only store. What we made carries a [`stamp`]; which attempt of a job an image is, its id tells
//! ([`generation`]).

mod fill;
pub mod generation;
mod library;
pub mod newest;
mod observer;
pub mod retention;
pub mod revision;
pub mod snapshot;
mod sources;
pub mod stamp;
mod takeover;
mod transfer;
pub mod upload;
mod verify;
pub mod withdraw;

use std::collections::HashMap;

use tokio::sync::Mutex;
use uuid::Uuid;

use crate::job::CloudName;
use crate::openstack::{CloudError, Clouds, ConfigError, Glance, Image, ImageQuery, Observed, Session};
use crate::source::SourceError;
pub use library::{get_latest_build_id, upload_image};
pub use observer::Observer;
pub use sources::{Sources, SourcesError};

pub use upload::{Done, Step, Upload};

/// The clouds of clouds.yaml, each opened once per process.
pub struct CloudPool {
    state: Mutex<Pool>,
}

struct Pool {
    clouds: Clouds,
    open: HashMap<String, Glance>,
}

impl CloudPool {
    /// Nothing is opened yet.
    pub fn new(clouds: Clouds) -> CloudPool {
        CloudPool { state: Mutex::new(Pool { clouds, open: HashMap::new() }) }
    }

    /// Use other files from now on. What goes on with a cloud that was opened before goes on.
    pub async fn reload(&self, clouds: Clouds) {
        *self.state.lock().await = Pool { clouds, open: HashMap::new() };
    }

    /// The Glance of a cloud.
    ///
    /// # Errors
    /// [`StoreError::Config`] for a cloud that is not configured, [`StoreError::Cloud`] for one that cannot be used as
    /// configured.
    pub async fn glance(&self, cloud: &CloudName) -> Result<Glance, StoreError> {
        let mut pool = self.state.lock().await;
        if let Some(glance) = pool.open.get(cloud.as_str()) {
            return Ok(glance.clone());
        }
        let glance = Glance::new(Session::new(pool.clouds.get(cloud.as_str())?)?);
        pool.open.insert(cloud.to_string(), glance.clone());
        Ok(glance)
    }

    /// The clouds that were opened, and whether Keystone accepted our credentials when it last answered.
    pub async fn logins(&self) -> Vec<(String, Option<bool>)> {
        let pool = self.state.lock().await;
        pool.open.iter().map(|(cloud, glance)| (cloud.clone(), glance.session().accepted())).collect()
    }

    /// The names of the configured clouds, sorted.
    pub async fn names(&self) -> Vec<String> {
        self.state.lock().await.clouds.names()
    }
}

/// Every image that truly is one of this job's.
async fn images_of_job(glance: &Glance, job: Uuid) -> Result<Observed<Vec<Image>>, StoreError> {
    let owner = glance.session().project_id().await?;
    let property = vec![(stamp::JOB.to_owned(), job.to_string())];
    let mut seen = glance.list(&ImageQuery { owner: Some(owner), property, ..ImageQuery::default() }).await?;
    seen.value.retain(stamp::is_true);
    Ok(seen)
}

/// Why something could not be done with an image, sorted by who can help.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The cloud is not configured, or wrongly.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cloud that an image is to be copied from is not configured, or wrongly.
    #[error("spec.source.image.cloud: {0}")]
    SourceCloud(#[source] ConfigError),
    /// The cloud said no, or nothing.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// The source cannot be read or may not be used.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What is asked cannot be done, however often it is tried.
    #[error("{field}: {reason}")]
    Rejected {
        /// The field of the job at fault.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// It went wrong this time.
    #[error("{0}")]
    Transient(String),
}
