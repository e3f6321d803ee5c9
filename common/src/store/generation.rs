//! Generations: several attempts of one job have ids that everybody can compute, and the cloud decides who goes on.
//! Creating an id succeeds once; a deleted id cannot be created again.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::job::CloudName;
use crate::openstack::{Image, ImageStatus};

/// The highest generation of one run.
pub const LAST: u8 = 7;

/// A transfer whose image was not touched for this long, by the cloud's own clock, has lost its worker.
pub const BEAT_LOST: SignedDuration = SignedDuration::from_secs(45);

/// A created image that nobody began to fill for this long is free to take.
pub const CREATE_LOST: SignedDuration = SignedDuration::from_secs(10);

/// Who has to decide between two attempts touches the newer one first. Once that was not touched for this long, whatever
/// was decided about the older one has happened.
pub const DECIDED: SignedDuration = SignedDuration::from_secs(60);

/// The ids of one run of a job on one cloud, by generation.
#[derive(Clone, Debug)]
pub struct Ids([Uuid; LAST as usize + 1]);

/// One live image of a run.
#[derive(Clone, Debug)]
pub struct Generation {
    /// Which attempt, 0 to [`LAST`].
    pub number: u8,
    /// The image.
    pub image: Image,
}

impl Ids {
    /// The ids of `run` of `job` on `cloud`.
    pub fn new(job: Uuid, cloud: &CloudName, run: u32) -> Ids {
        Ids(std::array::from_fn(|number| Uuid::new_v5(&job, format!("{cloud}/{run}/{number}").as_bytes())))
    }

    /// The id of a generation; none beyond the last.
    pub fn get(&self, number: u8) -> Option<Uuid> {
        self.0.get(usize::from(number)).copied()
    }

    /// The generations after `number`, or all of them, with their ids in order.
    pub fn after(&self, number: Option<u8>) -> impl Iterator<Item = (u8, Uuid)> + use<> {
        (0..=LAST).zip(self.0).skip(number.map_or(0, |number| usize::from(number) + 1))
    }

    /// The images among `images` that are ours, lowest generation first.
    pub fn live(&self, images: Vec<Image>) -> Vec<Generation> {
        let mut live: Vec<Generation> = images
            .into_iter()
            .filter(|image| !matches!(image.status, ImageStatus::Deleted | ImageStatus::PendingDelete))
            .filter_map(|image| {
                let number = self.0.iter().position(|id| id.to_string() == image.id)?;
                Some(Generation { number: u8::try_from(number).ok()?, image })
            })
            .collect();
        live.sort_by_key(|generation| generation.number);
        live
    }
}

/// What the highest live generation asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It is there: verify it.
    Active,
    /// Somebody fills it.
    Busy,
    /// It waits for bytes, and nobody seems to bring them.
    Free,
    /// Somebody began to fill it and is gone, or it can never become active.
    Abandoned,
}

/// How long nobody touched an image, by the cloud's own clock.
pub fn untouched(image: &Image, server_time: Timestamp) -> SignedDuration {
    server_time.duration_since(image.updated_at)
}

/// Look at an image by the cloud's own clock.
pub fn sight(image: &Image, server_time: Timestamp) -> Sight {
    let untouched = untouched(image, server_time);
    match image.status {
        ImageStatus::Active | ImageStatus::Deactivated => Sight::Active,
        ImageStatus::Queued if untouched < CREATE_LOST => Sight::Busy,
        ImageStatus::Queued => Sight::Free,
        ImageStatus::Saving | ImageStatus::Uploading | ImageStatus::Importing | ImageStatus::Other(_)
            if untouched < BEAT_LOST =>
        {
            Sight::Busy
        }
        ImageStatus::Saving
        | ImageStatus::Uploading
        | ImageStatus::Importing
        | ImageStatus::Other(_)
        | ImageStatus::Killed
        | ImageStatus::Deleted
        | ImageStatus::PendingDelete => Sight::Abandoned,
    }
}
