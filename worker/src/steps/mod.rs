//! One step of a job: ask the world, act once, return.

mod base_image;
mod build;
mod failure;
mod progress;
mod prune;
mod snapshot;
mod upload;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use imagewright_common::arch::Arch;
use imagewright_common::event::{Event, What};
use imagewright_common::job::{CloudName, ImageName, Keep, Message, PruneSpec, Spec, VERSION};
use imagewright_common::openstack::Clouds;
use imagewright_common::policy::Policy;
use imagewright_common::queue::Log;
use imagewright_common::store::upload::Look;
use imagewright_common::store::withdraw::Withdrawn;
use imagewright_common::store::{CloudPool, Observer, Sources};
use imagewright_common::telemetry::process_name;

use crate::builders::Builders;
use crate::ledger::Ledger;
use crate::room::Room;
use crate::verdict::{Ended, Failure, Sort};

/// What steps work with.
pub(crate) struct Tools {
    pub(crate) pool: CloudPool,
    pub(crate) sources: Sources,
    pub(crate) policy: RwLock<Arc<Policy>>,
    pub(crate) room: Room,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) namespace: String,
    pub(crate) builders: Builders,
    pub(crate) ledger: Arc<Ledger>,
}

impl Tools {
    /// The policy in force.
    pub(crate) fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those configured that jobs may act on.
    pub(crate) async fn clouds(&self) -> BTreeSet<CloudName> {
        let (policy, names) = (self.policy(), self.pool.names().await);
        names.into_iter().filter(|name| policy.clouds.fits(name)).filter_map(|name| name.parse().ok()).collect()
    }

    /// Say something of a job that changes nothing.
    async fn say(&self, message: &Message, what: What) -> Result<(), Failure> {
        let said = self.log.append(&Event::of(message, &process_name(), what)).await;
        said.map_err(|error| Failure::plain(Sort::Transient { after: None }, error.to_string()))
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
        Spec::Snapshot(spec) => snapshot::advance(tools, message, spec, observer).await,
        Spec::Build(spec) => build::advance(tools, message, spec, observer).await,
        Spec::BaseImage(spec) => base_image::advance(tools, message, spec, observer).await,
    }
}

/// Whether a step that went on without its message still goes on, where the world can tell.
pub(crate) async fn look(tools: &Tools, message: &Message) -> Result<Look, Failure> {
    match &message.spec {
        Spec::Upload(spec) => upload::look(tools, message, spec).await,
        Spec::Prune(_) | Spec::Snapshot(_) | Spec::Build(_) => Ok(Look::Unknown),
        Spec::BaseImage(spec) => upload::look(tools, message, &base_image::unresolved(spec)).await,
    }
}

/// Take back what a job has begun, so that nobody can go on with it.
pub(crate) async fn withdraw(tools: &Tools, message: &Message) -> Result<Withdrawn, Failure> {
    match &message.spec {
        Spec::Upload(spec) => upload::withdraw(tools, message, spec).await,
        Spec::Prune(_) => Ok(Withdrawn::Gone),
        Spec::Snapshot(spec) => snapshot::abandon(tools, message, spec).await.map(|()| Withdrawn::Gone),
        Spec::Build(spec) => build::withdraw(tools, message, spec).await,
        Spec::BaseImage(spec) => upload::withdraw(tools, message, &base_image::unresolved(spec)).await,
    }
}

/// Remove what a job that is given up has begun.
pub(crate) async fn abandon(tools: &Tools, message: &Message) {
    let left = match &message.spec {
        Spec::Upload(spec) => return upload::abandon(tools, message, spec).await,
        Spec::Prune(_) => return,
        Spec::BaseImage(spec) => return upload::abandon(tools, message, &base_image::unresolved(spec)).await,
        Spec::Snapshot(spec) => snapshot::abandon(tools, message, spec).await,
        Spec::Build(spec) => build::abandon(tools, message, spec).await,
    };
    if let Err(failure) = left {
        tracing::warn!(job.id = %message.id, error = failure.error, "something of the job is left on the cloud");
    }
}

/// Why a job may not be said to have failed yet: it has something to put right first, which cannot be done at the moment.
pub(crate) async fn owed(tools: &Tools, message: &Message) -> Option<Failure> {
    match &message.spec {
        Spec::Snapshot(spec) => snapshot::owed(tools, message, spec).await,
        Spec::Upload(_) | Spec::Prune(_) | Spec::Build(_) | Spec::BaseImage(_) => None,
    }
}

/// The job that keeps the revisions of an image to the newest few, once there is a newer one.
fn prune_child(message: &Message, name: &ImageName, cloud: &CloudName, keep: Keep, arch: Arch) -> Message {
    child(message, cloud, Spec::Prune(PruneSpec { name: name.clone(), cloud: cloud.clone(), keep, arch: Some(arch) }))
}

/// A job that follows from `message`.
fn child(message: &Message, cloud: &CloudName, spec: Spec) -> Message {
    Message {
        version: VERSION,
        id: message.child_id(spec.kind(), cloud),
        parent: Some(message.id),
        asked_at: message.asked_at,
        deadline: None,
        spec,
        progress: None,
    }
}
