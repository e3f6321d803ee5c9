//! Two attempts at one image: which of them stays.
//!
//! A cloud deletes whatever it is told to; no request can say "unless it became active meanwhile". So whoever deletes an
//! older attempt touches the newer one first, looks at the older one after that, and sends the deletion soon or never.
//! Whoever finds the older one active goes by that: it is safe once the newer one was not touched for longer than any
//! such deletion can be under way.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::timeout;
use uuid::Uuid;

use super::StoreError;
use super::generation::{DECIDED, Generation, LAST, untouched};
use super::stamp;
use super::upload::{Permit, Step, Upload, wait};
use crate::backoff::jitter;
use crate::openstack::{CloudErrorKind, Glance, Image, ImageStatus, NewImage};

/// Longest time from touching the newer attempt to sending the deletion of the older one, and for the deletion itself.
/// Together well below [`DECIDED`]; the first also below the time for which a new image is left to its maker.
const DECIDE: Duration = Duration::from_secs(8);
const DELETE: Duration = Duration::from_secs(20);

/// Whether the older attempt is in the way.
enum Older {
    Gone,
    Active(Box<Image>),
    Undecided(Step),
}

impl Upload<'_> {
    /// The order is what makes a take-over safe: only one can create the successor; an older attempt that became active
    /// meanwhile wins; the successor is filled only after the older one is gone.
    pub(super) async fn take_over(
        &self,
        glance: &Glance,
        stale: Generation,
        permit: Permit,
    ) -> Result<Step, StoreError> {
        let opened = self.open_source().await?;
        tracing::warn!(image.id = stale.image.id, "taking over an upload whose worker is gone");
        let touched = Instant::now();
        self.observer.enter("take over");
        let ids = self.ids().after(Some(stale.number));
        let successor = match create_next(glance, ids, |id| self.new_image(id, opened.format)).await? {
            Created::Ours(successor) => successor,
            Created::Anothers => return Ok(wait(jitter(Duration::from_secs(3)), "another worker is taking over")),
            Created::NoneLeft => {
                let reason = format!("{} attempts were begun on this cloud and none ended", u32::from(LAST) + 1);
                return Err(StoreError::Rejected { field: "spec.cloud", reason });
            }
        };
        match remove(glance, &stale.image, touched).await? {
            Older::Gone => self.fill(glance, successor.number, opened, permit).await,
            Older::Undecided(step) => Ok(step),
            // Nobody else decides about a successor as young as this.
            Older::Active(image) if touched.elapsed() <= DECIDE => {
                glance.delete(&successor.image.id).await?;
                self.verify(glance, stale.number, *image, None).await
            }
            Older::Active(_) => Ok(undecided()),
        }
    }

    /// Two attempts were found, and whoever made the newer one seems to be gone. Nothing when the newer one may go on.
    pub(super) async fn settle_found(
        &self,
        glance: &Glance,
        older: &Generation,
        newer: &Generation,
    ) -> Result<Option<Step>, StoreError> {
        match glance.get(&older.image.id).await {
            Ok(seen) if is_active(&seen.value) => {
                // Only now: whoever saw the older one unfinished has touched the newer one by then.
                let now = glance.get(&newer.image.id).await?;
                if untouched(&now.value, now.server_time) < DECIDED {
                    return Ok(Some(undecided()));
                }
                glance.delete(&newer.image.id).await?;
                return self.verify(glance, older.number, seen.value, None).await.map(Some);
            }
            Ok(_) => {}
            Err(error) if error.kind == CloudErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let touched = Instant::now();
        if newer.image.status == ImageStatus::Queued {
            glance.set_properties(&newer.image.id, &[(stamp::BEAT, &Timestamp::now().to_string())]).await?;
        }
        Ok(match remove(glance, &older.image, touched).await? {
            Older::Gone => None,
            Older::Active(_) => Some(undecided()),
            Older::Undecided(step) => Some(step),
        })
    }
}

/// Delete an attempt unless it is active, or time has run out since the newer one was touched.
async fn remove(glance: &Glance, older: &Image, touched: Instant) -> Result<Older, StoreError> {
    match glance.get(&older.id).await {
        Ok(seen) if is_active(&seen.value) => return Ok(Older::Active(Box::new(seen.value))),
        Ok(_) => {}
        Err(error) if error.kind == CloudErrorKind::NotFound => return Ok(Older::Gone),
        Err(error) => return Err(error.into()),
    }
    if delete_soon(glance, &older.id, touched).await? {
        return Ok(Older::Gone);
    }
    Ok(Older::Undecided(wait(jitter(Duration::from_secs(1)), "the cloud is slow")))
}

/// Who has the next generation.
pub(super) enum Created {
    Ours(Box<Generation>),
    Anothers,
    /// Every id was used and deleted before: nobody can create one.
    NoneLeft,
}

/// Create the first of `ids` that can be created; one that was deleted cannot.
pub(super) async fn create_next(
    glance: &Glance,
    ids: impl Iterator<Item = (u8, Uuid)>,
    new_image: impl Fn(Uuid) -> NewImage,
) -> Result<Created, StoreError> {
    for (number, id) in ids {
        match glance.create(&new_image(id)).await {
            Ok(image) => return Ok(Created::Ours(Box::new(Generation { number, image }))),
            Err(error) if error.kind == CloudErrorKind::Conflict => match glance.get(&id.to_string()).await {
                Ok(_) => return Ok(Created::Anothers),
                Err(error) if error.kind == CloudErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Created::NoneLeft)
}

/// Delete, unless it is too late for that since a newer attempt was touched at `touched`. Whether it is gone.
pub(super) async fn delete_soon(glance: &Glance, id: &str, touched: Instant) -> Result<bool, StoreError> {
    if touched.elapsed() > DECIDE {
        return Ok(false);
    }
    match timeout(DELETE, glance.delete(id)).await {
        Ok(deleted) => deleted.map(|_| true).map_err(StoreError::from),
        Err(_) => Ok(false),
    }
}

pub(super) fn is_active(image: &Image) -> bool {
    matches!(image.status, ImageStatus::Active | ImageStatus::Deactivated)
}

fn undecided() -> Step {
    wait(jitter(Duration::from_secs(5)), "which of two attempts stays is being decided")
}
