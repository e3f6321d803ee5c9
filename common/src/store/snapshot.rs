//! Images that Nova makes of a server: asked for once, waited for, and stamped as ours when they are whole.
//!
//! Nova chooses the id, so that no second worker is kept out by it. A server can have only one image made at a time,
//! and the image carries the server's id: who comes second finds it.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::{StoreError, stamp};
use crate::openstack::{CloudErrorKind, Glance, Image, ImageQuery, ImageStatus, Nova};

/// The server that an image was made of; written by Nova.
const INSTANCE: &str = "instance_uuid";

/// How often an image is asked for. Nova drops one whose making fails on the host, and says no more of it.
const TRIES: u32 = 3;

/// Where the image of a server stands.
#[derive(Debug)]
pub enum Snapshot {
    /// It is being made.
    Underway(String),
    /// It is whole, and nothing more happens with it.
    Whole(Box<Image>),
    /// It could not be made.
    Broken(String),
}

/// The image of `server` that this job asked for, asking for it if there is none. `asked` counts how often it was: an image
/// that vanishes again and again is not asked for without end.
///
/// # Errors
/// [`StoreError::Cloud`].
pub async fn make(
    nova: &Nova,
    glance: &Glance,
    server: &str,
    name: &str,
    properties: &BTreeMap<String, String>,
    asked: &mut u32,
) -> Result<Snapshot, StoreError> {
    let job = properties.get(stamp::JOB).cloned().unwrap_or_default();
    if let Some(image) = find(glance, server, &job).await? {
        return at(nova, server, image).await;
    }
    if *asked >= TRIES {
        return Ok(Snapshot::Broken(format!("the cloud dropped the image that it was to make {TRIES} times")));
    }
    let mut metadata = properties.clone();
    // A base image of ours has properties that Nova copies; these would speak for this image as well.
    for copied in [stamp::SELF, stamp::VERIFIED, stamp::KEEP, stamp::BEAT] {
        metadata.insert(copied.to_owned(), "none".to_owned());
    }
    match nova.create_image(server, name, &metadata).await {
        Ok(id) => {
            *asked += 1;
            Ok(Snapshot::Underway(format!("image {id} was asked for")))
        }
        // Another worker was faster, or Nova has not ended the one before.
        Err(error) if error.kind == CloudErrorKind::Conflict => Ok(Snapshot::Underway(error.message)),
        Err(error) => Err(error.into()),
    }
}

/// The live image that `job` had made of `server`.
///
/// # Errors
/// [`StoreError::Cloud`].
pub async fn find(glance: &Glance, server: &str, job: &str) -> Result<Option<Image>, StoreError> {
    let property = vec![(INSTANCE.to_owned(), server.to_owned()), (stamp::JOB.to_owned(), job.to_owned())];
    Ok(list(glance, property).await?.into_iter().next())
}

/// The image that `job` has made a revision already, of whichever server.
///
/// # Errors
/// [`StoreError::Cloud`].
pub async fn published(glance: &Glance, job: &str) -> Result<Option<Image>, StoreError> {
    let images = list(glance, vec![(stamp::JOB.to_owned(), job.to_owned())]).await?;
    Ok(images.into_iter().find(|image| image.status == ImageStatus::Active && stamp::is_verified(image)))
}

/// Images of this project with these properties.
async fn list(glance: &Glance, property: Vec<(String, String)>) -> Result<Vec<Image>, StoreError> {
    let owner = glance.session().project_id().await?;
    Ok(glance.list(&ImageQuery { owner: Some(owner), property, ..ImageQuery::default() }).await?.value)
}

async fn at(nova: &Nova, server: &str, image: Image) -> Result<Snapshot, StoreError> {
    match image.status {
        ImageStatus::Active => {}
        ImageStatus::Killed | ImageStatus::Deleted | ImageStatus::PendingDelete | ImageStatus::Deactivated => {
            return Ok(Snapshot::Broken(format!("image {} is {}", image.id, image.status)));
        }
        ImageStatus::Queued
        | ImageStatus::Saving
        | ImageStatus::Importing
        | ImageStatus::Uploading
        | ImageStatus::Other(_) => {
            return Ok(Snapshot::Underway(format!("image {} is {}", image.id, image.status)));
        }
    }
    // Seen on Nova: the image is active while the server is still being read; it takes no other order then.
    let busy = match nova.server(server).await {
        Ok(seen) => seen.task_state,
        Err(error) if error.kind == CloudErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    match busy {
        Some(task) if task.starts_with("image_") => Ok(Snapshot::Underway(format!("the server is still {task}"))),
        Some(_) | None if image.size.unwrap_or(0) == 0 => Ok(Snapshot::Broken(format!("image {} is empty", image.id))),
        Some(_) | None => Ok(Snapshot::Whole(Box::new(image))),
    }
}

/// Say on a whole image that it is ours and a revision from now on.
///
/// # Errors
/// [`StoreError::Cloud`]; [`StoreError::Rejected`] where Glance tells no digest.
pub async fn publish(
    glance: &Glance,
    image: &Image,
    properties: &BTreeMap<String, String>,
) -> Result<Image, StoreError> {
    super::verify::algorithm(image)?;
    let digest = image.os_hash_value.clone().unwrap_or_default();
    let all = properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let own = [(stamp::SELF, image.id.as_str()), (stamp::VERIFIED, digest.as_str())];
    Ok(glance.set_properties(&image.id, &all.chain(own).collect::<Vec<_>>()).await?)
}

/// How long an image that Nova makes may stay as it is: it says nothing while it reads the disk.
pub const DEADLINE: SignedDuration = SignedDuration::from_hours(1);
