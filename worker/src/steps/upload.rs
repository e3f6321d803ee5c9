//! The `upload` job: as many steps as the cloud asks for, then a `prune` child.

use std::sync::Arc;

use imagewright_common::job::{Message, UploadSpec};
use imagewright_common::status::State;
use imagewright_common::store::stamp::Stamp;
use imagewright_common::store::upload::Look;
use imagewright_common::store::withdraw::{self, Withdrawn};
use imagewright_common::store::{Done, Observer, Step, Upload};
use jiff::Timestamp;
use serde_json::json;

use super::{Tools, prune_child};
use crate::history;
use crate::verdict::{Before, Ended, Failure, Sort};

pub(super) async fn advance(tools: &Tools, message: &Message, spec: &UploadSpec, observer: &Arc<Observer>) -> Ended {
    match upload(tools, message, spec, observer).advance().await {
        Ok(Step::Done(done)) => succeeded(message, spec, done),
        Ok(Step::Wait { after, why }) => Ended::Wait { after, why },
        Ok(Step::TakenOver) => Ended::TakenOver,
        Ok(Step::Gone) => gone(tools, message).await,
        Err(error) => refused_again(tools, message, error.into()).await,
    }
}

/// A job that ended well may come again after its source is gone. That is no failure of a job that is done.
pub(super) async fn refused_again(tools: &Tools, message: &Message, failure: Failure) -> Ended {
    if matches!(failure.sort, Sort::Rejected { .. })
        && let Ok(status) = history::status(&*tools.log, message.id).await
        && status.state == State::Succeeded
    {
        return Ended::Before(Before::Well);
    }
    Ended::Failed(failure)
}

pub(super) async fn abandon(tools: &Tools, message: &Message, spec: &UploadSpec) {
    if let Err(error) = upload(tools, message, spec, &Arc::default()).abandon().await {
        tracing::warn!(job.id = %message.id, %error, "what the job had begun is left to a later prune");
    }
}

/// Whether somebody else is still at it.
pub(super) async fn look(tools: &Tools, message: &Message, spec: &UploadSpec) -> Result<Look, Failure> {
    Ok(upload(tools, message, spec, &Arc::default()).look().await?)
}

/// Take it back, whoever is at it.
pub(super) async fn withdraw(tools: &Tools, message: &Message, spec: &UploadSpec) -> Result<Withdrawn, Failure> {
    let glance = tools.pool.glance(&spec.cloud).await?;
    let stamp = stamp(tools, message, spec);
    Ok(withdraw::withdraw(&glance, &stamp, &spec.name, &spec.cloud, message.run()).await?)
}

fn stamp(tools: &Tools, message: &Message, spec: &UploadSpec) -> Stamp {
    Stamp {
        job: message.id,
        kind: message.spec.kind(),
        asked_at: message.asked_at(Timestamp::now()),
        namespace: tools.namespace.clone(),
        arch: spec.arch,
    }
}

fn upload<'a>(tools: &'a Tools, message: &Message, spec: &'a UploadSpec, observer: &Arc<Observer>) -> Upload<'a> {
    Upload {
        pool: &tools.pool,
        sources: &tools.sources,
        spec,
        stamp: stamp(tools, message, spec),
        run: message.run(),
        observer: observer.clone(),
        gate: &tools.room,
    }
}

fn succeeded(message: &Message, spec: &UploadSpec, done: Done) -> Ended {
    let Done { image, superseded } = done;
    let prune = prune_child(message, &spec.name, &spec.cloud, spec.keep, spec.arch);
    let mut result = json!({
        "image_id": image.id,
        "size": image.size,
        "disk_format": image.disk_format,
        "os_hash_algo": image.os_hash_algo,
        "os_hash_value": image.os_hash_value,
        "children": [prune.id],
    });
    if superseded && let Some(result) = result.as_object_mut() {
        result.insert("superseded".to_owned(), true.into());
    }
    Ended::Succeeded { result, children: vec![prune] }
}

/// The image of this job was there and was deleted: the job ended before, and the log knows how.
async fn gone(tools: &Tools, message: &Message) -> Ended {
    let status = match history::status(&*tools.log, message.id).await {
        Ok(status) => status,
        Err(error) => return Ended::Failed(Failure::plain(Sort::Transient { after: None }, error.to_string())),
    };
    match status.state {
        State::Succeeded | State::Cancelled => Ended::Before(Before::Well),
        State::Failed => Ended::Before(Before::Badly(status.error.unwrap_or_default())),
        State::Queued | State::Running | State::Waiting | State::Unknown => Ended::Failed(Failure::plain(
            Sort::Rejected { field: None },
            "its image was deleted by somebody else before the job ended; enqueue it under a new id to upload again",
        )),
    }
}
