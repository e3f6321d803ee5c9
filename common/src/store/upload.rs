//! One image from one source, exactly once, whoever else tries at the same time. Each call of [`Upload::advance`] asks
//! the cloud where things stand, does the one thing that follows, and says what comes next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use super::generation::{Generation, Ids, LAST, Sight, sight};
use super::sources::{IMAGE_FIELD, Sources};
use super::stamp::{self, Stamp};
use super::transfer::{self, Observer, Sent};
use super::verify::{self, Expected};
use super::{CloudPool, StoreError, revision};
use crate::backoff::jitter;
use crate::job::{CloudName, DiskFormat, Source, UploadSpec};
use crate::openstack::{CloudErrorKind, Glance, Image, ImageQuery, ImageStatus, NewImage, Observed};
use crate::source::Opened;

/// Longest time between creating a successor and deleting what it replaces. A worker that was asleep in between no
/// longer knows what it deletes.
const TAKE_OVER_TIME: Duration = Duration::from_secs(8);

/// How long to leave somebody else's transfer alone before looking again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Leave to send bytes; given back when dropped.
pub type Permit = Box<dyn Send + Sync>;

/// Who bounds the number of transfers.
pub trait Gate: Send + Sync {
    /// Leave for one more transfer to `cloud`, if there is room.
    fn enter(&self, cloud: &CloudName) -> Option<Permit>;
}

/// Room for everybody.
pub struct OpenGate;

impl Gate for OpenGate {
    fn enter(&self, _: &CloudName) -> Option<Permit> {
        Some(Box::new(()))
    }
}

/// One upload, as far as it must be known to do the next thing.
pub struct Upload<'a> {
    /// The clouds.
    pub pool: &'a CloudPool,
    /// Where bytes may come from.
    pub sources: &'a Sources,
    /// What is asked.
    pub spec: &'a UploadSpec,
    /// What the image is marked with.
    pub stamp: Stamp,
    /// Which run of the job.
    pub run: u32,
    /// Told how far it is.
    pub observer: Arc<Observer>,
    /// Asked before bytes move.
    pub gate: &'a dyn Gate,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// It ended well.
    Done(Done),
    /// Look again later; nothing is wrong.
    Wait {
        /// Not before.
        after: Duration,
        /// What is waited for.
        why: String,
    },
    /// Another worker has it: say nothing.
    TakenOver,
    /// Its image was there and is gone. Nothing is uploaded again.
    Gone,
}

/// An upload that ended well.
#[derive(Debug)]
pub struct Done {
    /// The image that is there for it.
    pub image: Box<Image>,
    /// It is a newer revision, which made this one needless.
    pub superseded: bool,
}

fn wait(after: Duration, why: &str) -> Step {
    Step::Wait { after, why: why.to_owned() }
}

impl Upload<'_> {
    /// Do the next thing.
    ///
    /// # Errors
    /// [`StoreError`], sorted by what to do next.
    pub async fn advance(&self) -> Result<Step, StoreError> {
        let glance = self.pool.glance(&self.spec.cloud).await?;
        let Observed { value: images, server_time } = self.images_of_job(&glance).await?;
        if let Some(done) = images.iter().find(|image| stamp::is_verified(image)) {
            return self.finish(done.clone(), &images);
        }
        let live = self.ids().live(images);
        if live.is_empty() { self.begin(&glance).await } else { self.go_on(&glance, live, server_time).await }
    }

    /// Remove what this run has begun and not finished; nothing that is verified.
    ///
    /// # Errors
    /// The first deletion or listing that fails.
    pub async fn abandon(&self) -> Result<(), StoreError> {
        let glance = self.pool.glance(&self.spec.cloud).await?;
        let images = self.images_of_job(&glance).await?.value;
        for generation in self.ids().live(images) {
            if !stamp::is_verified(&generation.image) {
                glance.delete(&generation.image.id).await?;
            }
        }
        Ok(())
    }

    fn ids(&self) -> Ids {
        Ids::new(self.stamp.job, &self.spec.cloud, self.run)
    }

    async fn images_of_job(&self, glance: &Glance) -> Result<Observed<Vec<Image>>, StoreError> {
        let owner = glance.session().project_id().await?;
        let property = vec![(stamp::JOB.to_owned(), self.stamp.job.to_string())];
        let mut seen = glance.list(&ImageQuery { owner: Some(owner), property, ..ImageQuery::default() }).await?;
        seen.value.retain(stamp::is_true);
        Ok(seen)
    }

    /// The job is done once no later attempt lives; whoever made that one will find this and remove it.
    fn finish(&self, image: Image, images: &[Image]) -> Result<Step, StoreError> {
        let live = self.ids().live(images.to_vec());
        let place = live.iter().position(|generation| generation.image.id == image.id);
        let last = place.is_none_or(|place| place + 1 == live.len());
        if last {
            return Ok(Step::Done(Done { image: Box::new(image), superseded: false }));
        }
        Ok(wait(jitter(Duration::from_secs(1)), "a later attempt is being withdrawn"))
    }

    /// Nothing lives: make the first.
    async fn begin(&self, glance: &Glance) -> Result<Step, StoreError> {
        let Some(permit) = self.gate.enter(&self.spec.cloud) else { return Ok(no_room()) };
        let opened = match self.open_source().await {
            Err(StoreError::Rejected { field: IMAGE_FIELD, reason }) => {
                return self.without_source(glance, reason).await;
            }
            opened => opened?,
        };
        let ids = self.ids();
        let Some(id) = ids.get(0) else { return Ok(Step::Gone) };
        match glance.create(&self.new_image(id, opened.format)).await {
            Ok(_) => self.fill(glance, 0, opened, permit).await,
            Err(error) if error.kind == CloudErrorKind::Conflict => match glance.get(&id.to_string()).await {
                Ok(seen) => self.go_on(glance, ids.live(vec![seen.value]), seen.server_time).await,
                Err(error) if error.kind == CloudErrorKind::NotFound => self.gone(glance).await,
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Something lives: see what it needs.
    async fn go_on(&self, glance: &Glance, mut live: Vec<Generation>, now: Timestamp) -> Result<Step, StoreError> {
        let Some(current) = live.pop() else { return Ok(Step::Gone) };
        let state = sight(&current.image, now);
        if state == Sight::Busy {
            let queued = current.image.status == ImageStatus::Queued;
            let after = if queued { jitter(Duration::from_secs(3)) } else { LOOK_AGAIN };
            return Ok(wait(after, "another worker sends the image"));
        }
        let Some(permit) = self.gate.enter(&self.spec.cloud) else { return Ok(no_room()) };
        for older in live {
            if let Some(step) = self.settle_older(glance, &older, &current).await? {
                return Ok(step);
            }
        }
        match state {
            Sight::Active => self.verify(glance, current.number, current.image, None).await,
            Sight::Free => {
                let opened = self.open_source().await?;
                self.fill(glance, current.number, opened, permit).await
            }
            Sight::Abandoned => self.take_over(glance, current, permit).await,
            Sight::Busy => Ok(wait(LOOK_AGAIN, "another worker sends the image")),
        }
    }

    /// The order is what makes a take-over safe: only one can create the successor; an older attempt that became active
    /// meanwhile wins; the successor is filled only after the older one is gone.
    async fn take_over(&self, glance: &Glance, stale: Generation, permit: Permit) -> Result<Step, StoreError> {
        let next = stale.number + 1;
        let Some(id) = self.ids().get(next) else {
            let reason = format!("{} attempts were begun on this cloud and none ended", u32::from(LAST) + 1);
            return Err(StoreError::Rejected { field: "spec.cloud", reason });
        };
        let opened = self.open_source().await?;
        tracing::warn!(image.id = stale.image.id, generation = next, "taking over an upload whose worker is gone");
        let begun = Instant::now();
        let successor = match glance.create(&self.new_image(id, opened.format)).await {
            Ok(image) => Generation { number: next, image },
            Err(error) if error.kind == CloudErrorKind::Conflict => {
                return Ok(wait(jitter(Duration::from_secs(3)), "another worker is taking over"));
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(step) = self.settle_older(glance, &stale, &successor).await? {
            return Ok(step);
        }
        if begun.elapsed() > TAKE_OVER_TIME {
            return Ok(wait(jitter(Duration::from_secs(3)), "took too long over taking over"));
        }
        self.fill(glance, next, opened, permit).await
    }

    /// Two live attempts: the older one wins if it became active, else it goes.
    async fn settle_older(
        &self,
        glance: &Glance,
        older: &Generation,
        newer: &Generation,
    ) -> Result<Option<Step>, StoreError> {
        let asked = Instant::now();
        match glance.get(&older.image.id).await {
            Ok(seen) if seen.value.status == ImageStatus::Active => {
                glance.delete(&newer.image.id).await?;
                self.verify(glance, older.number, seen.value, None).await.map(Some)
            }
            Ok(_) if asked.elapsed() > TAKE_OVER_TIME => {
                Ok(Some(wait(jitter(Duration::from_secs(1)), "the cloud is slow")))
            }
            Ok(_) => {
                glance.delete(&older.image.id).await?;
                Ok(None)
            }
            Err(error) if error.kind == CloudErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn fill(&self, glance: &Glance, number: u8, opened: Opened, permit: Permit) -> Result<Step, StoreError> {
        let Some(id) = self.ids().get(number) else { return Ok(Step::Gone) };
        let length = opened.length;
        tracing::info!(image.id = %id, bytes = length, format = %opened.format, "sending");
        let sent = transfer::send(glance, id, opened, &self.observer).await;
        drop(permit);
        let digests = match sent? {
            Sent::Whole(digests) => Some(digests),
            Sent::Unclear => None,
            Sent::TakenOver => return Ok(Step::TakenOver),
        };
        match (glance.get(&id.to_string()).await, digests) {
            (Ok(seen), Some(digests)) => {
                self.verify(glance, number, seen.value, Some(Expected::of(length, digests))).await
            }
            (Ok(_), None) => Ok(wait(jitter(Duration::from_secs(1)), "another worker sends the image")),
            (Err(error), _) if error.kind == CloudErrorKind::NotFound => Ok(Step::TakenOver),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Compare what is stored with the source, and say so on the image.
    async fn verify(
        &self,
        glance: &Glance,
        number: u8,
        image: Image,
        expected: Option<Expected>,
    ) -> Result<Step, StoreError> {
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
        let stamped = verify::stamp(glance, &image).await?;
        let images = self.images_of_job(glance).await?.value;
        self.finish(stamped, &images)
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
        if let Some(id) = self.ids().get(number + 1) {
            let format = image.disk_format.clone().unwrap_or_default();
            match glance.create(&NewImage { disk_format: format, ..self.new_image(id, DiskFormat::Raw) }).await {
                Err(error) if error.kind != CloudErrorKind::Conflict => return Err(error.into()),
                _ => {}
            }
        }
        glance.delete(&image.id).await?;
        Ok(())
    }

    fn new_image(&self, id: Uuid, format: DiskFormat) -> NewImage {
        let mut properties = self.spec.properties.clone();
        properties.extend(self.stamp.properties(id));
        NewImage {
            id,
            name: self.spec.name.to_string(),
            disk_format: format.as_str().to_owned(),
            container_format: "bare".to_owned(),
            visibility: self.spec.visibility.as_str().to_owned(),
            architecture: Some(self.spec.arch.glance().to_owned()),
            properties,
        }
    }

    async fn open_source(&self) -> Result<Opened, StoreError> {
        let declared = self.spec.disk_format;
        match &self.spec.source {
            Source::File(path) => self.sources.file(path, declared).await,
            Source::Url { url, sha256 } => self.sources.url(url, sha256, declared).await,
            Source::Image(image) => self.sources.image(self.pool, image, declared).await,
        }
    }

    /// The source was pruned before it was copied. If the destination has something newer, nobody misses it.
    async fn without_source(&self, glance: &Glance, reason: String) -> Result<Step, StoreError> {
        match self.newer_revision(glance).await? {
            Some(image) => Ok(Step::Done(Done { image: Box::new(image), superseded: true })),
            None => Err(StoreError::Rejected { field: IMAGE_FIELD, reason }),
        }
    }

    /// The image was deleted. If something newer stands in its place, that was our own prune.
    async fn gone(&self, glance: &Glance) -> Result<Step, StoreError> {
        Ok(match self.newer_revision(glance).await? {
            Some(image) => Step::Done(Done { image: Box::new(image), superseded: true }),
            None => Step::Gone,
        })
    }

    async fn newer_revision(&self, glance: &Glance) -> Result<Option<Image>, StoreError> {
        let images = revision::owned(glance, &self.spec.name).await?.value;
        let newer = |image: &Image| {
            stamp::is_verified(image)
                && stamp::arch(image) == Some(self.spec.arch)
                && stamp::asked_at(image).is_some_and(|at| at >= self.stamp.asked_at)
        };
        Ok(images.into_iter().find(newer))
    }
}

fn no_room() -> Step {
    wait(jitter(Duration::from_secs(3)), "all transfer slots of this worker are taken")
}
