//! One step of a job: ask the world, act once, return.

mod failure;
mod prune;
mod upload;

use std::sync::Arc;

use imagewright_common::job::{Message, Spec};
use imagewright_common::policy::Policy;
use imagewright_common::queue::Log;
use imagewright_common::store::{CloudPool, Observer, Sources};

use crate::room::Room;
use crate::verdict::Ended;

/// What steps work with.
pub(crate) struct Tools {
    pub(crate) pool: CloudPool,
    pub(crate) sources: Sources,
    pub(crate) policy: Policy,
    pub(crate) room: Room,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) namespace: String,
}

/// Do the next thing for a job.
pub(crate) async fn advance(tools: &Tools, message: &Message, observer: &Arc<Observer>) -> Ended {
    match &message.spec {
        Spec::Upload(spec) => upload::advance(tools, message, spec, observer).await,
        Spec::Prune(spec) => prune::advance(tools, spec).await,
    }
}

/// Remove what a job that is given up has begun.
pub(crate) async fn abandon(tools: &Tools, message: &Message) {
    match &message.spec {
        Spec::Upload(spec) => upload::abandon(tools, message, spec).await,
        Spec::Prune(_) => {}
    }
}
