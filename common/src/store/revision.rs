//! Revisions: the images of one name and project, in the order in which they were wanted.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::stamp;
use crate::arch::Arch;
use crate::job::ImageName;
use crate::openstack::{CloudError, Glance, Image, ImageQuery, Observed};

/// Every image of exactly this name that our project owns, hidden ones too, newest first.
///
/// # Errors
/// Any error of the listing: half a list is no list.
pub async fn owned(glance: &Glance, name: &ImageName) -> Result<Observed<Vec<Image>>, CloudError> {
    let owner = glance.session().project_id().await?;
    let query = |hidden| ImageQuery {
        name: Some(name.to_string()),
        owner: Some(owner.clone()),
        hidden,
        ..ImageQuery::default()
    };
    let mut seen = glance.list(&query(false)).await?;
    seen.value.extend(glance.list(&query(true)).await?.value);
    seen.value
        .retain(|image| image.owner.as_deref() == Some(owner.as_str()) && image.name.as_deref() == Some(name.as_str()));
    seen.value.sort_by(|a, b| a.id.cmp(&b.id));
    seen.value.dedup_by(|a, b| a.id == b.id);
    seen.value.sort_by_key(|image| Reverse(order(image)));
    Ok(seen)
}

/// What orders revisions: when the revision was wanted, where a true stamp says so, else when the image was created;
/// Glance knows that only to the second. Ties by job id, then image id.
pub fn order(image: &Image) -> (Timestamp, String, String) {
    let job = stamp::job(image).map(|job| job.to_string()).unwrap_or_default();
    (stamp::asked_at(image).unwrap_or(image.created_at), job, image.id.clone())
}

/// The newest of `images`, given newest first, that is active, truly ours and verified, for one architecture. What
/// others made under the name is no witness that what was wanted is there.
pub fn newest_verified(images: &[Image], arch: Arch) -> Option<&Image> {
    images.iter().find(|image| stamp::is_verified(image) && stamp::arch(image) == Some(arch))
}

/// What counts apart: the architecture, by our stamp or by Glance's property. None for images without either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    /// No architecture.
    Bare,
    /// One of ours.
    Known(Arch),
    /// A word of Glance that is none of ours.
    Foreign(String),
}

/// The series of an image.
pub fn series(image: &Image) -> Series {
    match (stamp::arch(image), &image.architecture) {
        (Some(arch), _) => Series::Known(arch),
        (None, Some(word)) => Series::Foreign(word.clone()),
        (None, None) => Series::Bare,
    }
}
