//! The stamp: properties by which an image tells that we made it, for which job, and that its bytes were verified.

use std::collections::BTreeMap;

use jiff::Timestamp;
use uuid::Uuid;

use crate::arch::Arch;
use crate::job::Kind;
use crate::openstack::{Image, ImageStatus};

/// The job it was made for.
pub const JOB: &str = "imagewright_job";
/// The kind of that job.
pub const KIND: &str = "imagewright_kind";
/// When the revision was wanted.
pub const ASKED_AT: &str = "imagewright_asked_at";
/// The version of the program that made it.
pub const VERSION: &str = "imagewright_version";
/// The namespace of the queue the job was on.
pub const NAMESPACE: &str = "imagewright_namespace";
/// The image's own id: a stamp that was copied to another image (Nova copies properties to snapshots) is void.
pub const SELF: &str = "imagewright_self";
/// Our word for the architecture, which tells armhf from arm64.
pub const ARCH: &str = "imagewright_arch";
/// The digest, once the stored bytes were found right.
pub const VERIFIED: &str = "imagewright_verified";
/// The SHA-256 of what was downloaded for it, once the stored bytes were found to be that.
pub const SOURCE: &str = "imagewright_source_sha256";
/// Moved while a transfer goes on.
pub const BEAT: &str = "imagewright_beat";
/// Set to `true` by an operator: never pruned.
pub const KEEP: &str = "imagewright_keep";

/// What every cloud object of a job is stamped with.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// The job.
    pub job: Uuid,
    /// Its kind.
    pub kind: Kind,
    /// When the result was wanted.
    pub asked_at: Timestamp,
    /// The namespace of its queue.
    pub namespace: String,
    /// The architecture it is for.
    pub arch: Arch,
}

impl Stamp {
    /// The properties of image `id`.
    pub fn properties(&self, id: Uuid) -> BTreeMap<String, String> {
        let mut properties = self.of_snapshot();
        properties.insert(SELF.to_owned(), id.to_string());
        properties
    }

    /// The properties of an image whose id is not known yet: not yet a true stamp.
    pub fn of_snapshot(&self) -> BTreeMap<String, String> {
        [
            (JOB, self.job.to_string()),
            (KIND, self.kind.to_string()),
            (ASKED_AT, format!("{:.3}", self.asked_at)),
            (VERSION, env!("CARGO_PKG_VERSION").to_owned()),
            (NAMESPACE, self.namespace.clone()),
            (ARCH, self.arch.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }
}

/// Whether the stamp on `image` is its own.
pub fn is_true(image: &Image) -> bool {
    image.properties.get(SELF).is_some_and(|id| *id == image.id)
}

/// A property of a true stamp.
pub fn get<'a>(image: &'a Image, name: &str) -> Option<&'a str> {
    if is_true(image) { image.properties.get(name).map(String::as_str) } else { None }
}

/// Whether any stamp of ours is on it, true or copied.
pub fn is_stamped(image: &Image) -> bool {
    image.properties.contains_key(JOB)
}

/// The job that made it.
pub fn job(image: &Image) -> Option<Uuid> {
    get(image, JOB).and_then(|id| Uuid::parse_str(id).ok())
}

/// When it was wanted.
pub fn asked_at(image: &Image) -> Option<Timestamp> {
    get(image, ASKED_AT).and_then(|at| at.parse().ok())
}

/// Active, truly stamped, and its bytes found to be what they should be.
pub fn is_verified(image: &Image) -> bool {
    let digest = get(image, VERIFIED);
    image.status == ImageStatus::Active && digest.is_some() && digest == image.os_hash_value.as_deref()
}

/// The architecture of an image: by its stamp, else by Glance's property.
pub fn arch(image: &Image) -> Option<Arch> {
    get(image, ARCH)
        .and_then(|word| word.parse().ok())
        .or_else(|| image.architecture.as_deref().and_then(Arch::from_glance))
}
