//! One step of a job: ask the world, act once, return.

mod base_image;
mod failure;
mod prune;
mod upload;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use imagewright_common::job::{Message, Spec};
use imagewright_common::openstack::Clouds;
use imagewright_common::policy::Policy;
use imagewright_common::queue::Log;
use imagewright_common::store::upload::Look;
use imagewright_common::store::withdraw::Withdrawn;
use imagewright_common::store::{CloudPool, Observer, Sources};

use crate::room::Room;
use crate::verdict::{Ended, Failure};

/// What steps work with.
pub(crate) struct Tools {
    pub(crate) pool: CloudPool,
    pub(crate) sources: Sources,
    pub(crate) policy: RwLock<Arc<Policy>>,
    pub(crate) room: Room,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) namespace: String,
}

impl Tools {
    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Read clouds.yaml and the policy again, and use them from the next step on; what cannot be read changes nothing.
    pub(crate) async fn reload(&self, policy: Option<&Path>) -> anyhow::Result<()> {
        let (clouds, policy) = (Clouds::load()?, Arc::new(Policy::load(policy)?));
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
        self.pool.reload(clouds).await;
        Ok(())
    }
}

/// Do the next thing for a job.
pub(crate) async fn advance(tools: &Tools, message: &Message, observer: &Arc<Observer>) -> Ended {
    match &message.spec {
        Spec::Upload(spec) => upload::advance(tools, message, spec, observer).await,
        Spec::Prune(spec) => prune::advance(tools, spec, observer).await,
        Spec::BaseImage(spec) => base_image::advance(tools, message, spec, observer).await,
    }
}

/// Whether a step that went on without its message still goes on, where the world can tell.
pub(crate) async fn look(tools: &Tools, message: &Message) -> Result<Look, Failure> {
    match &message.spec {
        Spec::Upload(spec) => upload::look(tools, message, spec).await,
        Spec::Prune(_) => Ok(Look::Unknown),
        Spec::BaseImage(spec) => upload::look(tools, message, &base_image::unresolved(spec)).await,
    }
}

/// Take back what a job has begun, so that nobody can go on with it.
pub(crate) async fn withdraw(tools: &Tools, message: &Message) -> Result<Withdrawn, Failure> {
    match &message.spec {
        Spec::Upload(spec) => upload::withdraw(tools, message, spec).await,
        Spec::Prune(_) => Ok(Withdrawn::Gone),
        Spec::BaseImage(spec) => upload::withdraw(tools, message, &base_image::unresolved(spec)).await,
    }
}

/// Remove what a job that is given up has begun.
pub(crate) async fn abandon(tools: &Tools, message: &Message) {
    match &message.spec {
        Spec::Upload(spec) => upload::abandon(tools, message, spec).await,
        Spec::Prune(_) => {}
        Spec::BaseImage(spec) => upload::abandon(tools, message, &base_image::unresolved(spec)).await,
    }
}
