//! Taking an upload back, whoever is at it: a take-over that sends nothing. The cloud decides who was first, so a job
//! ends cancelled or with its image, never both.

use std::time::Instant;

use uuid::Uuid;

use super::generation::{DECIDED, Generation, Ids, untouched};
use super::stamp::{self, Stamp};
use super::takeover::{Created, create_next, delete_soon, is_active};
use super::{StoreError, images_of_job};
use crate::job::{CloudName, ImageName};
use crate::openstack::{CloudErrorKind, Glance, Image, ImageStatus, NewImage};

/// Rounds after which somebody else is left to win.
const ROUNDS: u8 = 5;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawn {
    /// Nothing of this run is left, and nothing can come any more.
    Gone,
    /// Its image is active: the job ends well.
    TooLate,
    /// Others make new attempts as fast as they are removed; again later.
    Contended,
}

/// Remove what this run of a job has begun on `cloud` and make sure that nobody can go on with it: every id that a
/// worker could create next is used up (a deleted id cannot be created again).
///
/// # Errors
/// [`StoreError::Cloud`]; what was done until then stays done, and the call may be repeated.
pub async fn withdraw(
    glance: &Glance,
    stamp: &Stamp,
    name: &ImageName,
    cloud: &CloudName,
    run: u32,
) -> Result<Withdrawn, StoreError> {
    take_back(glance, stamp, name, cloud, run, is_active).await
}

/// Remove what a run that is given up has left, even what is active and was never verified: nobody says success of it.
///
/// # Errors
/// As [`withdraw`].
pub(super) async fn give_up(
    glance: &Glance,
    stamp: &Stamp,
    name: &ImageName,
    cloud: &CloudName,
    run: u32,
) -> Result<(), StoreError> {
    let is_kept = |image: &Image| stamp::is_verified(image) || image.status == ImageStatus::Deactivated;
    take_back(glance, stamp, name, cloud, run, is_kept).await.map(drop)
}

async fn take_back(
    glance: &Glance,
    stamp: &Stamp,
    name: &ImageName,
    cloud: &CloudName,
    run: u32,
    is_kept: impl Fn(&Image) -> bool,
) -> Result<Withdrawn, StoreError> {
    let ids = Ids::new(stamp.job, cloud, run);
    for _ in 0..ROUNDS {
        let seen = images_of_job(glance, stamp.job).await?;
        if seen.value.iter().any(stamp::is_verified) {
            return Ok(Withdrawn::TooLate);
        }
        let live = ids.live(seen.value);
        let touched = Instant::now();
        // While it is there, nobody says that an older one has succeeded.
        let next = ids.after(live.last().map(|highest| highest.number));
        let blocker = match create_next(glance, next, |id| blocker(stamp, name, id)).await? {
            Created::Anothers => continue,
            Created::Ours(blocker) => Some(blocker.image.id),
            // Nothing can be put in the way of whoever is at the last attempt: it is left alone for as long as it may live.
            Created::NoneLeft if live.iter().any(|one| untouched(&one.image, seen.server_time) < DECIDED) => {
                return Ok(Withdrawn::Contended);
            }
            Created::NoneLeft => None,
        };
        let outcome = remove(glance, &live, touched, &is_kept).await?;
        if let Some(id) = blocker.filter(|_| outcome != Withdrawn::Contended) {
            glance.delete(&id).await?;
        }
        return Ok(outcome);
    }
    Ok(Withdrawn::Contended)
}

fn blocker(stamp: &Stamp, name: &ImageName, id: Uuid) -> NewImage {
    NewImage {
        id,
        name: name.to_string(),
        disk_format: "raw".to_owned(),
        container_format: "bare".to_owned(),
        visibility: "private".to_owned(),
        architecture: None,
        properties: stamp.properties(id),
    }
}

/// Lowest first: whoever sends one of them is told by a 404, and finds its successor blocked.
async fn remove(
    glance: &Glance,
    live: &[Generation],
    touched: Instant,
    is_kept: impl Fn(&Image) -> bool,
) -> Result<Withdrawn, StoreError> {
    for generation in live {
        match glance.get(&generation.image.id).await {
            Ok(seen) if is_kept(&seen.value) => return Ok(Withdrawn::TooLate),
            Ok(_) if !delete_soon(glance, &generation.image.id, touched).await? => return Ok(Withdrawn::Contended),
            Ok(_) => {}
            Err(error) if error.kind == CloudErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Withdrawn::Gone)
}
