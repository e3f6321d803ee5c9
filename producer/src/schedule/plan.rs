//! What to do about each target: pure, from what the log and the clouds said.
//!
//! The log is read before the clouds. A job that the log then shows as ended has its image on the cloud, if anywhere; a
//! job that ends in between is under way here, and fresh the next time.

use std::collections::HashMap;

use imagewright_common::arch::Arch;
use imagewright_common::job::{CloudName, DEFAULT_DEADLINE, ImageName, Kind};
use imagewright_common::status::{self, Fold, JobStatus};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::Target;
use super::slot::Slot;
use crate::exit::Failure;

/// A job that said nothing for so long is not waited for: it says something at least daily, and one that was never taken
/// is past its default deadline.
const SILENT: SignedDuration = DEFAULT_DEADLINE.saturating_add(SignedDuration::from_hours(1));

/// The newest verified revision on one cloud.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub(crate) id: String,
    /// What orders it among the revisions.
    pub(crate) asked_at: Timestamp,
}

/// What one cloud holds.
pub(crate) type Newest = HashMap<(ImageName, Arch), Revision>;

/// What is known when the plan is made.
pub(crate) struct Seen<'a> {
    pub(crate) now: Timestamp,
    pub(crate) namespace: &'a str,
    pub(crate) jobs: Fold,
    pub(crate) clouds: HashMap<CloudName, Result<Newest, Failure>>,
}

/// How things stand with a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// Its newest revision is younger than the interval.
    Fresh,
    /// No revision is there: to be enqueued.
    Missing,
    /// Its newest revision is as old as the interval: to be enqueued.
    Stale,
    /// A job for it has not ended.
    UnderWay,
    /// This slot's job failed.
    Failed,
    /// This slot's job was cancelled.
    Cancelled,
    /// This slot's job succeeded, but what it made is not there.
    Gone,
    /// The cloud does not tell.
    Unreachable,
}

/// What to do about one target, and why.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) target: Target,
    pub(crate) state: State,
    pub(crate) reason: String,
    /// The job that is to be enqueued, or that the reason is about.
    pub(crate) job: Option<String>,
    pub(crate) id: Uuid,
    pub(crate) slot: Slot,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Fresh => "fresh",
            State::Missing => "missing",
            State::Stale => "stale",
            State::UnderWay => "under-way",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Gone => "gone",
            State::Unreachable => "unreachable",
        }
    }

    /// Whether a job is to be enqueued.
    pub(crate) fn is_due(self) -> bool {
        matches!(self, State::Missing | State::Stale)
    }
}

/// What a target's state is, why, and which job it is about.
type Found = (State, String, Option<String>);

/// Judge every target.
pub(crate) fn plan(targets: Vec<Target>, seen: &Seen<'_>) -> Vec<Planned> {
    let under_way = under_way(seen);
    let judge = |target: Target| {
        let slot = Slot::at(seen.now, target.interval);
        let id = slot.job_id(seen.namespace, &target);
        let (cloud, (state, reason)) = on_clouds(&target, seen);
        let (state, reason, job) = if state.is_due() {
            let doing =
                [cloud, &target.cloud].into_iter().find_map(|cloud| under_way.get(&key(&target, cloud)).cloned());
            let ended = || ended(&target, cloud, (id, slot), seen);
            doing.or_else(ended).unwrap_or_else(|| (state, reason, Some(id.to_string())))
        } else {
            (state, reason, None)
        };
        Planned { target, state, reason, job, id, slot }
    };
    targets.into_iter().map(judge).collect()
}

/// What the clouds say: the one where it is made, and if that has nothing to be done, the first copy that lacks.
fn on_clouds<'a>(target: &'a Target, seen: &Seen<'_>) -> (&'a CloudName, (State, String)) {
    let made = on_cloud(target, &target.cloud, seen);
    if made.0 == State::Fresh {
        for cloud in &target.also {
            let (state, reason) = on_cloud(target, cloud, seen);
            if state.is_due() {
                return (cloud, (state, format!("{cloud}: {reason}")));
            }
        }
    }
    (&target.cloud, made)
}

/// What one cloud says.
fn on_cloud(target: &Target, cloud: &CloudName, seen: &Seen<'_>) -> (State, String) {
    let Target { name, arch, interval, .. } = target;
    let newest = match seen.clouds.get(cloud) {
        Some(Ok(newest)) => newest.get(&(name.clone(), *arch)),
        Some(Err(failure)) => return (State::Unreachable, failure.to_string()),
        None => return (State::Unreachable, "it was not asked".to_owned()),
    };
    let Some(Revision { id, asked_at }) = newest else {
        return (State::Missing, "no active, verified image".to_owned());
    };
    if seen.now.duration_since(*asked_at) >= *interval {
        return (State::Stale, format!("image {id} was asked for at {asked_at:.0}, more than {interval:#} ago"));
    }
    let due = asked_at.saturating_add(*interval).unwrap_or(Timestamp::MAX);
    (State::Fresh, format!("image {id} was asked for at {asked_at:.0}; the next is due at {due:.0}"))
}

/// The slot's own job, if it has ended.
fn ended(target: &Target, cloud: &CloudName, (id, slot): (Uuid, Slot), seen: &Seen<'_>) -> Option<Found> {
    let job = seen.jobs.get(&id.to_string());
    let next = slot.end;
    let is_build = target.spec.kind() == Kind::Build;
    let (state, reason) = match job.state {
        status::State::Failed => {
            let error = job.error.unwrap_or_default();
            let again = format!("imagewright dead requeue {id}");
            (State::Failed, format!("job {id} failed: {error}; to try again before {next:.0}: {again}"))
        }
        status::State::Cancelled => {
            (State::Cancelled, format!("job {id} was cancelled; the next is enqueued from {next:.0} on"))
        }
        status::State::Succeeded if is_build && *cloud == target.cloud => {
            (State::Fresh, format!("job {id} found that nothing has changed; the next looks from {next:.0} on"))
        }
        status::State::Succeeded if is_build => (
            State::Gone,
            format!(
                "job {id} succeeded, but its copy is not on {cloud}: `imagewright status --tree {id}` tells why; the \
                 next is enqueued from {next:.0} on"
            ),
        ),
        status::State::Succeeded => (
            State::Gone,
            format!(
                "job {id} succeeded, but its image is not there any more; the next is enqueued from {next:.0} on, \
                 and `imagewright upload` makes one at once"
            ),
        ),
        status::State::Queued | status::State::Running | status::State::Waiting | status::State::Unknown => {
            return None;
        }
    };
    Some((state, reason, Some(job.id)))
}

type Key = (Option<String>, Option<String>, Option<String>);

fn key(target: &Target, cloud: &CloudName) -> Key {
    (Some(target.name.to_string()), Some(target.arch.to_string()), Some(cloud.to_string()))
}

/// The targets for which a job has not ended, whoever asked for it.
fn under_way(seen: &Seen<'_>) -> HashMap<Key, Found> {
    let is_live = |job: &status::Unfinished<'_>| {
        job.kind != Some(Kind::Prune.as_str()) && seen.now.duration_since(job.updated_at) < SILENT
    };
    let found = |JobStatus { id, name, arch, cloud, state, updated_at, .. }: JobStatus| {
        let since = updated_at.map(|at| format!(" since {at:.0}")).unwrap_or_default();
        ((name, arch, cloud), (State::UnderWay, format!("job {id} is {state}{since}"), Some(id)))
    };
    seen.jobs.unfinished().filter(is_live).map(|job| found(seen.jobs.get(job.id))).collect()
}

#[cfg(test)]
mod tests;
