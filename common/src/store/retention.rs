//! Retention: keep the newest revisions, delete the older ones, sweep what our dead jobs left. A plan first, by pure
//! rules; then its deletions, one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::revision::{self, Series};
use super::stamp;
use crate::arch::Arch;
use crate::job::{ImageName, Keep};
use crate::openstack::{CloudError, CloudErrorKind, Deletion, Glance, Image, ImageStatus, Nova, Observed};
use crate::policy::Globs;

/// How often a plan is made anew because an image that should stay was no longer active.
const PLANS_MAX: u32 = 3;

/// What to keep.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Images of this name.
    pub name: &'a ImageName,
    /// Only this architecture.
    pub arch: Option<Arch>,
    /// How many revisions stay, per architecture.
    pub keep: Keep,
    /// Ours are those stamped with this namespace.
    pub namespace: &'a str,
    /// Names whose unstamped images count as ours.
    pub adopt: &'a Globs,
    /// How long a leftover lies untouched before it is deleted.
    pub leftover_grace: Duration,
}

/// What our own log knows of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It ended.
    Ended,
    /// It has not ended, and was last heard of then.
    LastHeard(Timestamp),
    /// Nothing.
    Nothing,
}

/// The log, as far as retention asks it.
#[async_trait]
pub trait History: Send + Sync {
    /// What is known of a job, now.
    async fn of(&self, job: Uuid) -> Known;
}

/// No log at all: leftovers are only reported.
pub struct NoHistory;

#[async_trait]
impl History for NoHistory {
    async fn of(&self, _: Uuid) -> Known {
        Known::Nothing
    }
}

/// What becomes of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// A revision that stays.
    Keep,
    /// It goes.
    Delete,
    /// No revision of ours; left alone.
    Ignore,
}

/// One image and the rule that decides about it.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The image.
    pub image: Image,
    /// What becomes of it.
    pub action: Action,
    /// Why, for a human.
    pub rule: String,
}

/// Every image of the name, judged; newest first.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One judgement an image.
    pub judgements: Vec<Judgement>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Revisions that stay, those that could not be deleted among them.
    pub kept: Vec<Ruled>,
    /// What is gone.
    pub deleted: Vec<Ruled>,
}

/// An image id and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ruled {
    /// The image.
    pub id: String,
    /// The rule.
    pub rule: String,
}

/// Judge every image of the name.
///
/// # Errors
/// Any error while listing; nothing may be deleted on half a list.
pub async fn plan(glance: &Glance, request: &Request<'_>, history: &dyn History) -> Result<Plan, CloudError> {
    let Observed { value: images, server_time } = revision::owned(glance, request.name).await?;
    let mut places: BTreeMap<Series, usize> = BTreeMap::new();
    let mut judgements = Vec::with_capacity(images.len());
    for image in images {
        let series = revision::series(&image);
        let (action, rule) = if request.arch.is_some_and(|arch| series != Series::Known(arch)) {
            (Action::Ignore, "another architecture".to_owned())
        } else if is_leftover(&image) {
            leftover(&image, request, server_time, history).await
        } else {
            match no_revision(&image, request) {
                Some(reason) => (Action::Ignore, reason.to_owned()),
                None => {
                    let place = places.entry(series).or_default();
                    *place += 1;
                    by_place(&image, *place, request.keep)
                }
            }
        };
        judgements.push(Judgement { image, action, rule });
    }
    if judgements.iter().any(Judgement::is_old_revision) {
        let used = in_use(glance).await?;
        for judgement in judgements.iter_mut().filter(|judgement| judgement.is_old_revision()) {
            if let Some(server) = used.get(&judgement.image.id) {
                (judgement.action, judgement.rule) = (Action::Keep, format!("in use by server {server}"));
            }
        }
    }
    Ok(Plan { judgements })
}

/// The images that servers of the project were booted from, and one server each. A cloud without Nova has none; a Nova
/// that does not answer is an error, for then nothing may be deleted.
async fn in_use(glance: &Glance) -> Result<BTreeMap<String, String>, CloudError> {
    let session = glance.session();
    if !session.has_service("compute").await? {
        return Ok(BTreeMap::new());
    }
    let servers = Nova::new(session.clone()).servers("").await?;
    Ok(servers.into_iter().filter_map(|server| Some((server.image_id()?.to_owned(), server.name))).collect())
}

/// Why an image is no revision of ours.
fn no_revision(image: &Image, request: &Request<'_>) -> Option<&'static str> {
    let stamped = stamp::is_true(image);
    if image.status != ImageStatus::Active {
        Some("not active, and not ours to remove")
    } else if stamped && stamp::get(image, stamp::NAMESPACE) != Some(request.namespace) {
        Some("made under another namespace")
    } else if stamped && !stamp::is_verified(image) {
        Some("not verified yet")
    } else if stamped {
        None
    } else if stamp::is_stamped(image) {
        Some("carries the stamp of another image")
    } else if !request.adopt.fits(request.name.as_str()) {
        Some("not made by us, and the policy does not adopt the name")
    } else {
        None
    }
}

/// The newest never goes, whatever is asked.
fn by_place(image: &Image, place: usize, keep: Keep) -> (Action, String) {
    let keep = keep.get().max(1);
    if place <= keep {
        (Action::Keep, format!("revision {place} of the newest {keep}"))
    } else if image.protected {
        (Action::Keep, "protected".to_owned())
    } else if stamp::get(image, stamp::KEEP) == Some("true") {
        (Action::Keep, format!("marked {}", stamp::KEEP))
    } else {
        (Action::Delete, format!("revision {place}, older than the newest {keep}"))
    }
}

/// Begun by us and never finished.
fn is_leftover(image: &Image) -> bool {
    let unfinished = match image.status {
        ImageStatus::Queued
        | ImageStatus::Saving
        | ImageStatus::Uploading
        | ImageStatus::Importing
        | ImageStatus::Killed => true,
        ImageStatus::Active
        | ImageStatus::Deactivated
        | ImageStatus::Deleted
        | ImageStatus::PendingDelete
        | ImageStatus::Other(_) => false,
    };
    unfinished && stamp::is_true(image)
}

async fn leftover(image: &Image, request: &Request<'_>, now: Timestamp, history: &dyn History) -> (Action, String) {
    let grace = SignedDuration::try_from(request.leftover_grace).unwrap_or(SignedDuration::MAX);
    let ignore = |rule: &str| (Action::Ignore, rule.to_owned());
    let Some(job) = stamp::job(image) else { return ignore("its stamp names no job") };
    if stamp::get(image, stamp::NAMESPACE) != Some(request.namespace) {
        return ignore("made under another namespace");
    }
    if now.duration_since(image.updated_at) < grace {
        return ignore("unfinished, touched lately");
    }
    match history.of(job).await {
        Known::Ended => (Action::Delete, format!("left by job {job}, which ended")),
        Known::LastHeard(at) if Timestamp::now().duration_since(at) >= grace => {
            (Action::Delete, format!("left by job {job}, silent since {at:.0}"))
        }
        Known::LastHeard(_) => ignore("its job goes on"),
        Known::Nothing => {
            (Action::Ignore, format!("unfinished, but job {job} is not in the log: delete it by hand if it is dead"))
        }
    }
}

/// Make a plan and carry it out.
///
/// # Errors
/// Any error but a refused deletion (403, 409), which is reported as kept and left to a later prune.
pub async fn carry_out(glance: &Glance, request: &Request<'_>, history: &dyn History) -> Result<Outcome, CloudError> {
    let mut plan = plan(glance, request, history).await?;
    for _ in 1..PLANS_MAX {
        if plan.deletions().next().is_none() || still_active(glance, &plan).await? {
            break;
        }
        tracing::warn!(image.name = %request.name, "an image that should stay is no longer active; planning anew");
        plan = self::plan(glance, request, history).await?;
    }
    if plan.deletions().next().is_some() && !still_active(glance, &plan).await? {
        tracing::warn!(image.name = %request.name, "the revisions keep changing; deleting nothing this time");
        return Ok(plan.without_deletions());
    }
    let mut outcome = Outcome::default();
    for judgement in plan.judgements {
        let id = judgement.image.id;
        match judgement.action {
            Action::Ignore => {}
            Action::Keep => outcome.kept.push(Ruled { id, rule: judgement.rule }),
            Action::Delete => match glance.delete(&id).await {
                Ok(Deletion::Deleted | Deletion::AlreadyGone) => {
                    outcome.deleted.push(Ruled { id, rule: judgement.rule })
                }
                Err(error) if matches!(error.kind, CloudErrorKind::Forbidden | CloudErrorKind::Conflict) => {
                    outcome.kept.push(Ruled {
                        id,
                        rule: format!("{}, but the cloud refused: {}", judgement.rule, error.message),
                    });
                }
                Err(error) => return Err(error),
            },
        }
    }
    Ok(outcome)
}

/// Read the ones that stay again: what the list said may be old.
async fn still_active(glance: &Glance, plan: &Plan) -> Result<bool, CloudError> {
    for judgement in plan.judgements.iter().filter(|judgement| judgement.action == Action::Keep) {
        match glance.get(&judgement.image.id).await {
            Ok(seen) if seen.value.status == ImageStatus::Active => {}
            Ok(_) => return Ok(false),
            Err(error) if error.kind == CloudErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl Judgement {
    fn is_old_revision(&self) -> bool {
        self.action == Action::Delete && self.image.status == ImageStatus::Active
    }
}

impl Plan {
    fn deletions(&self) -> impl Iterator<Item = &Judgement> {
        self.judgements.iter().filter(|judgement| judgement.action == Action::Delete)
    }

    fn without_deletions(self) -> Outcome {
        let ruled = |judgement: Judgement| Ruled { id: judgement.image.id, rule: judgement.rule };
        let kept =
            self.judgements.into_iter().filter(|judgement| judgement.action == Action::Keep).map(ruled).collect();
        Outcome { kept, deleted: Vec::new() }
    }
}
