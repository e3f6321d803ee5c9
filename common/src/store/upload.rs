//! One image from one source, exactly once, whoever else tries at the same time. Each call of [`Upload::advance`] asks
//! the cloud where things stand, does the one thing that follows, and says what comes next.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;

use super::generation::{DECIDED, Generation, Ids, Sight, sight, untouched};
use super::sources::{IMAGE_FIELD, Sources};
use super::stamp::{self, Stamp};
use super::{CloudPool, Observer, StoreError, images_of_job, revision, withdraw};
use crate::arch::Arch;
use crate::backoff::jitter;
use crate::job::{CloudName, DiskFormat, Source, UploadSpec};
use crate::openstack::{CloudErrorKind, Glance, Image, ImageStatus, NewImage, Observed};
use crate::source::Opened;

/// How long to leave somebody else's transfer alone before looking again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// The step in which bytes move.
pub const SEND: &str = "send";

/// Leave to send bytes; given back when dropped.
pub type Permit = Box<dyn Send + Sync>;

/// Who bounds the number of transfers.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Leave for one more transfer to `cloud`, if there is room before long.
    async fn enter(&self, cloud: &CloudName) -> Option<Permit>;
}

/// Room for everybody.
pub struct OpenGate;

#[async_trait]
impl Gate for OpenGate {
    async fn enter(&self, _: &CloudName) -> Option<Permit> {
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

/// What a look from outside tells of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Somebody is at it.
    GoesOn,
    /// Nobody is: it ended, or whoever had it is gone.
    Over,
    /// There is nothing to look at.
    Unknown,
}

/// An upload that ended well.
#[derive(Debug)]
pub struct Done {
    /// The image that is there for it.
    pub image: Box<Image>,
    /// It is a newer revision, which made this one needless.
    pub superseded: bool,
}

pub(super) fn wait(after: Duration, why: &str) -> Step {
    Step::Wait { after, why: why.to_owned() }
}

impl Upload<'_> {
    /// Do the next thing.
    ///
    /// # Errors
    /// [`StoreError`], sorted by what to do next.
    pub async fn advance(&self) -> Result<Step, StoreError> {
        self.observer.enter("look");
        let step = self.next_thing().await;
        self.observer.leave();
        step
    }

    async fn next_thing(&self) -> Result<Step, StoreError> {
        let glance = self.pool.glance(&self.spec.cloud).await?;
        let Observed { value: images, server_time } = images_of_job(&glance, self.stamp.job).await?;
        if let Some(done) = images.iter().find(|image| stamp::is_verified(image)) {
            return self.finish(&glance, done.clone(), images.clone(), server_time).await;
        }
        let live = self.ids().live(images);
        if live.is_empty() { self.begin(&glance).await } else { self.go_on(&glance, live, server_time).await }
    }

    /// Whether somebody sends the image right now, by what the cloud shows.
    ///
    /// # Errors
    /// The cloud cannot be asked.
    pub async fn look(&self) -> Result<Look, StoreError> {
        let glance = self.pool.glance(&self.spec.cloud).await?;
        let Observed { value: images, server_time } = images_of_job(&glance, self.stamp.job).await?;
        let is_busy = |current: &Generation| sight(&current.image, server_time) == Sight::Busy;
        Ok(if self.ids().live(images).last().is_some_and(is_busy) { Look::GoesOn } else { Look::Over })
    }

    /// Remove what this run has begun and not finished; nothing that is verified.
    ///
    /// # Errors
    /// The first deletion or listing that fails.
    pub async fn abandon(&self) -> Result<(), StoreError> {
        let glance = self.pool.glance(&self.spec.cloud).await?;
        let images = images_of_job(&glance, self.stamp.job).await?.value;
        if self.ids().live(images).is_empty() {
            return Ok(());
        }
        withdraw::give_up(&glance, &self.stamp, &self.spec.name, &self.spec.cloud, self.run).await
    }

    pub(super) fn ids(&self) -> Ids {
        Ids::new(self.stamp.job, &self.spec.cloud, self.run)
    }

    /// The job is done once no later attempt lives. Whoever touched one a moment ago may have a deletion of this image
    /// under way, on what it saw before; it is given time. One whose maker is gone is removed.
    pub(super) async fn finish(
        &self,
        glance: &Glance,
        image: Image,
        images: Vec<Image>,
        server_time: Timestamp,
    ) -> Result<Step, StoreError> {
        let live = self.ids().live(images);
        let place = live.iter().position(|generation| generation.image.id == image.id);
        for later in live.iter().skip(place.map_or(live.len(), |place| place + 1)) {
            match sight(&later.image, server_time) {
                Sight::Free if untouched(&later.image, server_time) < DECIDED => {
                    return Ok(wait(jitter(Duration::from_secs(3)), "a later attempt may still be under way"));
                }
                Sight::Busy => return Ok(wait(jitter(Duration::from_secs(3)), "a later attempt is being withdrawn")),
                Sight::Active if stamp::is_verified(&later.image) => {}
                Sight::Active | Sight::Free | Sight::Abandoned => drop(glance.delete(&later.image.id).await?),
            }
        }
        Ok(Step::Done(Done { image: Box::new(image), superseded: false }))
    }

    /// Nothing lives: make the first.
    async fn begin(&self, glance: &Glance) -> Result<Step, StoreError> {
        let Some(permit) = self.gate.enter(&self.spec.cloud).await else { return Ok(no_room()) };
        let opened = match self.open_source().await {
            Err(StoreError::Rejected { field: IMAGE_FIELD, reason }) => {
                return self.without_source(glance, reason).await;
            }
            opened => opened?,
        };
        let ids = self.ids();
        let Some(id) = ids.get(0) else { return Ok(Step::Gone) };
        self.observer.enter("create");
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
        for older in live {
            if let Some(step) = self.settle_found(glance, &older, &current).await? {
                return Ok(step);
            }
        }
        match state {
            Sight::Active => self.verify(glance, current.number, current.image, None).await,
            Sight::Free => {
                let Some(permit) = self.gate.enter(&self.spec.cloud).await else { return Ok(no_room()) };
                let opened = self.open_source().await?;
                if is_for(&current.image, self.spec.arch, opened.format) {
                    return self.fill(glance, current.number, opened, permit).await;
                }
                self.take_over(glance, current, permit).await
            }
            Sight::Abandoned => {
                let Some(permit) = self.gate.enter(&self.spec.cloud).await else { return Ok(no_room()) };
                self.take_over(glance, current, permit).await
            }
            Sight::Busy => Ok(wait(LOOK_AGAIN, "another worker sends the image")),
        }
    }

    pub(super) fn new_image(&self, id: Uuid, format: DiskFormat) -> NewImage {
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

    pub(super) async fn open_source(&self) -> Result<Opened, StoreError> {
        self.observer.enter("open source");
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

/// Whether an empty image was made for these bytes: neither by who withdraws the job, nor for what the source was before.
fn is_for(image: &Image, arch: Arch, format: DiskFormat) -> bool {
    image.disk_format.as_deref() == Some(format.as_str()) && image.architecture.as_deref() == Some(arch.glance())
}

fn no_room() -> Step {
    wait(jitter(Duration::from_secs(3)), "all transfer slots of this worker are taken")
}
