//! The `prune` job: one step.

use imagewright_common::job::PruneSpec;
use imagewright_common::store::Observer;
use imagewright_common::store::retention::{self, Request};
use serde_json::json;

use super::{Tools, failure};
use crate::history::LogHistory;
use crate::verdict::Ended;

pub(super) async fn advance(tools: &Tools, spec: &PruneSpec, observer: &Observer) -> Ended {
    observer.enter("prune");
    let ended = prune(tools, spec).await;
    observer.leave();
    ended
}

async fn prune(tools: &Tools, spec: &PruneSpec) -> Ended {
    let glance = match tools.pool.glance(&spec.cloud).await {
        Ok(glance) => glance,
        Err(error) => return Ended::Failed(error.into()),
    };
    let policy = tools.policy();
    let request = Request {
        name: &spec.name,
        arch: spec.arch,
        keep: spec.keep,
        namespace: &tools.namespace,
        adopt: &policy.adopt,
        leftover_grace: policy.leftover_grace,
    };
    match retention::carry_out(&glance, &request, &LogHistory::new(tools.log.clone())).await {
        Ok(outcome) => Ended::Succeeded { result: json!(outcome), children: Vec::new() },
        Err(error) => Ended::Failed(failure::cloud(error)),
    }
}
