//! The whole of an upload, or of a look-up, as one call: what a program that has no queue needs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::retention::{self, NoHistory, Request};
use super::stamp::Stamp;
use super::upload::{OpenGate, Step, Upload};
use super::{CloudPool, Sources, StoreError, revision, stamp};
use crate::arch::Arch;
use crate::job::{CloudName, DiskFormat, ImageName, Keep, Kind, Source, UploadSpec, Visibility};
use crate::openstack::{Image, ImageStatus};
use crate::policy::Globs;

/// Upload the file at `path` as the newest revision of `name` on `cloud`, verify it, and keep the newest `keep` ones.
///
/// Returns the created image. That older revisions could not be pruned is logged, not an error.
///
/// # Errors
/// [`StoreError`] when the image could not be made; what was begun is removed.
pub async fn upload_image(
    pool: &CloudPool,
    arch: Arch,
    cloud: &CloudName,
    name: &ImageName,
    path: &Path,
    keep: Keep,
) -> Result<Image, StoreError> {
    let file = std::path::absolute(path).map_err(|error| unusable(path, error.to_string()))?;
    let root = file.parent().ok_or_else(|| unusable(path, "is no file".to_owned()))?;
    let sources = Sources::new::<_, &str>(&[root], &[]).map_err(|error| unusable(path, error.to_string()))?;
    let spec = UploadSpec {
        name: name.clone(),
        arch,
        cloud: cloud.clone(),
        keep,
        source: Source::File(file.display().to_string()),
        disk_format: DiskFormat::Auto,
        properties: BTreeMap::new(),
        visibility: Visibility::Private,
    };
    let namespace = "imagewright".to_owned();
    let stamp = Stamp { job: Uuid::now_v7(), kind: Kind::Upload, asked_at: Timestamp::now(), namespace, arch };
    let observer = Arc::default();
    let upload = Upload { pool, sources: &sources, spec: &spec, stamp, run: 0, observer, gate: &OpenGate };
    let image = loop {
        match upload.advance().await {
            Ok(Step::Done(done)) => break *done.image,
            Ok(Step::Wait { after, .. }) => tokio::time::sleep(after).await,
            Ok(Step::TakenOver | Step::Gone) => {
                return Err(StoreError::Transient("somebody deleted the image".to_owned()));
            }
            Err(error) => {
                if let Err(left) = upload.abandon().await {
                    tracing::warn!(error = %left, "what was begun could not be removed");
                }
                return Err(error);
            }
        }
    };
    let request = Request {
        name,
        arch: Some(arch),
        keep,
        namespace: &upload.stamp.namespace,
        adopt: &Globs::default(),
        leftover_grace: Duration::MAX,
    };
    if let Err(error) = retention::carry_out(&pool.glance(cloud).await?, &request, &NoHistory).await {
        tracing::warn!(%error, "older revisions were not pruned");
    }
    Ok(image)
}

fn unusable(path: &Path, reason: String) -> StoreError {
    StoreError::Rejected { field: "path", reason: format!("{}: {reason}", path.display()) }
}

/// The id of the newest active image called `name` that our project owns on `cloud`; none when there is none.
///
/// An image of ours whose bytes are not verified yet does not count. With `arch`, only images of that architecture;
/// with `any_status`, images that are not active too.
///
/// # Errors
/// [`StoreError`] when the cloud is unknown or does not answer.
pub async fn get_latest_build_id(
    pool: &CloudPool,
    cloud: &CloudName,
    name: &ImageName,
    arch: Option<Arch>,
    any_status: bool,
) -> Result<Option<String>, StoreError> {
    let glance = pool.glance(cloud).await?;
    let images = revision::owned(&glance, name).await?.value;
    let fits =
        |image: &&Image| (any_status || is_usable(image)) && arch.is_none_or(|arch| stamp::arch(image) == Some(arch));
    Ok(images.iter().find(fits).map(|image| image.id.clone()))
}

fn is_usable(image: &Image) -> bool {
    image.status == ImageStatus::Active && (!stamp::is_true(image) || stamp::is_verified(image))
}
