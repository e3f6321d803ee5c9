//! The part of an upload that moves bytes: fill an image, compare what is stored with the source, replace it if it is wrong.

use std::time::Duration;

use super::takeover::create_next;
use super::transfer::{self, Sent};
use super::upload::{Permit, SEND, Step, Upload, wait};
use super::verify::{self, Expected};
use super::{StoreError, images_of_job};
use crate::backoff::jitter;
use crate::job::DiskFormat;
use crate::openstack::{CloudErrorKind, Glance, Image, ImageStatus, NewImage, Observed};
use crate::source::Opened;

impl Upload<'_> {
    pub(super) async fn fill(
        &self,
        glance: &Glance,
        number: u8,
        opened: Opened,
        permit: Permit,
    ) -> Result<Step, StoreError> {
        let Some(id) = self.ids().get(number) else { return Ok(Step::Gone) };
        let length = opened.length;
        tracing::info!(image.id = %id, bytes = length, format = %opened.format, "sending");
        self.observer.enter(SEND);
        let sent = transfer::send(glance, id, opened, &self.observer).await;
        drop(permit);
        let sent = match sent? {
            Sent::TakenOver => return Ok(Step::TakenOver),
            sent @ (Sent::Whole(_) | Sent::Unclear(_)) => sent,
        };
        let image = match glance.get(&id.to_string()).await {
            Ok(seen) => seen.value,
            Err(error) if error.kind == CloudErrorKind::NotFound => return Ok(Step::TakenOver),
            Err(error) => return Err(error.into()),
        };
        match sent {
            Sent::Whole(digests) => self.verify(glance, number, image, Some(Expected::of(length, digests))).await,
            Sent::Unclear(error) if image.status == ImageStatus::Queued => Err(error.into()),
            Sent::Unclear(_) | Sent::TakenOver => self.verify(glance, number, image, None).await,
        }
    }

    /// Compare what is stored with the source, and say so on the image.
    pub(super) async fn verify(
        &self,
        glance: &Glance,
        number: u8,
        image: Image,
        expected: Option<Expected>,
    ) -> Result<Step, StoreError> {
        self.observer.enter("verify");
        match image.status {
            ImageStatus::Active => {}
            ImageStatus::Deactivated => {
                return Err(StoreError::Rejected {
                    field: "spec.cloud",
                    reason: "its image was deactivated by an administrator".to_owned(),
                });
            }
            ImageStatus::Queued => {
                return Err(StoreError::Transient("the cloud took the bytes and kept none".to_owned()));
            }
            ImageStatus::Saving
            | ImageStatus::Uploading
            | ImageStatus::Importing
            | ImageStatus::Killed
            | ImageStatus::Deleted
            | ImageStatus::PendingDelete
            | ImageStatus::Other(_) => return Ok(wait(jitter(Duration::from_secs(2)), "the cloud stores the image")),
        }
        let expected = match expected
            .filter(|expected| verify::algorithm(&image).is_ok_and(|algo| expected.digest(algo).is_some()))
        {
            Some(expected) => expected,
            None => self.read_source(&image).await?,
        };
        if let Err(difference) = verify::compare(&image, &expected) {
            self.replace(glance, number, &image).await?;
            return Err(StoreError::Transient(difference));
        }
        let stamped = verify::stamp(glance, &image, &self.spec.source).await?;
        let Observed { value: images, server_time } = images_of_job(glance, self.stamp.job).await?;
        self.finish(glance, stamped, images, server_time).await
    }

    /// What the source holds, without sending it: for an image that another worker filled.
    async fn read_source(&self, image: &Image) -> Result<Expected, StoreError> {
        let algorithm = verify::algorithm(image)?;
        let opened = self.open_source().await?;
        let length = opened.length;
        let digest = opened.digest(algorithm).await?;
        Ok(Expected::one(length, algorithm, digest))
    }

    /// A stored image that is wrong can only be replaced by its successor.
    async fn replace(&self, glance: &Glance, number: u8, image: &Image) -> Result<(), StoreError> {
        let format = image.disk_format.clone().unwrap_or_default();
        let new = |id| NewImage { disk_format: format.clone(), ..self.new_image(id, DiskFormat::Raw) };
        create_next(glance, self.ids().after(Some(number)), new).await?;
        glance.delete(&image.id).await?;
        Ok(())
    }
}
