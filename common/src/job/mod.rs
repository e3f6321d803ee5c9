//! What may be asked: the job message, version 1. Only data; how it is done is the worker's business.

mod base_image;
mod build;
mod prune;
mod schema;
mod upload;
mod words;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::arch::Arch;
pub use base_image::{BaseImageSpec, Origin, Release, UnknownRelease};
pub use build::{Base, BuildSpec, HostPort, Prefix, RunnerVersion, Script, SecretName, Sha256Hex, SnapshotSpec};
pub use prune::PruneSpec;
pub use schema::{property_names, schema};
pub use upload::{BadSource, DiskFormat, ImageRef, Source, UploadSpec, Visibility};
pub use words::{BadWord, CloudName, ImageName, Keep};

/// The message version this program writes. Older versions are read for ever.
pub const VERSION: u32 = 1;

/// How long a job without a deadline of its own may take, counted from when the queue first saw it.
pub const DEFAULT_DEADLINE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// One job as it travels on the queue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Message version; this is version 1.
    #[schemars(extend("const" = 1))]
    pub version: u32,
    /// Idempotency key, chosen by whoever enqueues.
    pub id: Uuid,
    /// The job that enqueued this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Uuid>,
    /// When the result was wanted (RFC 3339); orders revisions. At most five minutes in the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub asked_at: Option<Timestamp>,
    /// When the job is given up if it has not ended (RFC 3339); 24 hours after it was
    /// enqueued by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub deadline: Option<Timestamp>,
    /// What is asked.
    pub spec: Spec,
    /// Written by workers only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// How far a job has come. Fields that this version does not know are kept and passed on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// Raised each time the job is requeued from `dead`.
    #[serde(default)]
    pub run: u32,
    /// How far a job of several steps has come, for workers alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<serde_json::Value>,
    /// What a later version wrote.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// What a job asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Spec {
    /// Make an image on one cloud.
    Upload(UploadSpec),
    /// Keep the newest revisions of an image on one cloud.
    Prune(PruneSpec),
    /// Make an image of a server.
    Snapshot(SnapshotSpec),
    /// Build an image.
    Build(BuildSpec),
    /// Refresh the base image of builds on one cloud.
    BaseImage(BaseImageSpec),
}

/// The kinds of job, without their data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// See [`UploadSpec`].
    Upload,
    /// See [`PruneSpec`].
    Prune,
    /// See [`SnapshotSpec`].
    Snapshot,
    /// See [`BuildSpec`].
    Build,
    /// See [`BaseImageSpec`].
    BaseImage,
}

/// Where jobs of one kind and architecture queue up; written `<kind>.<arch>`, as in `upload.amd64` or `prune.any`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lane {
    /// The kind of job.
    pub kind: Kind,
    /// Its architecture; none means the lane `any`, which every worker of the kind serves.
    pub arch: Option<Arch>,
}

/// A word that is no kind of job.
#[derive(Debug, thiserror::Error)]
#[error("unknown kind {given:?}: use one of {}", Kind::ALL.map(Kind::as_str).join(", "))]
pub struct UnknownKind {
    given: String,
}

impl Message {
    /// The run that this message belongs to; 0 until an operator requeues the job.
    pub fn run(&self) -> u32 {
        self.progress.as_ref().map_or(0, |progress| progress.run)
    }

    /// When the result was wanted: as said, else the time in a version 7 id (RFC 9562), else when the queue first saw it.
    pub fn asked_at(&self, first_seen: Timestamp) -> Timestamp {
        self.asked_at.or_else(|| id_time(self.id)).unwrap_or(first_seen)
    }

    /// When the job is given up: as said, else [`DEFAULT_DEADLINE`] after the queue first saw it.
    pub fn deadline(&self, first_seen: Timestamp) -> Timestamp {
        self.deadline.unwrap_or_else(|| first_seen.saturating_add(DEFAULT_DEADLINE).unwrap_or(Timestamp::MAX))
    }

    /// The id of a child: the same each time, so that a step that enqueues children may run twice.
    pub fn child_id(&self, kind: Kind, cloud: &CloudName) -> Uuid {
        let name = format!("{}/{}/{}", self.run(), kind.as_str(), cloud);
        Uuid::new_v5(&self.id, name.as_bytes())
    }
}

/// The time inside a version 7 UUID, to the millisecond.
pub fn id_time(id: Uuid) -> Option<Timestamp> {
    let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}

impl Spec {
    /// Which kind this is.
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Upload(_) => Kind::Upload,
            Spec::Prune(_) => Kind::Prune,
            Spec::Snapshot(_) => Kind::Snapshot,
            Spec::Build(_) => Kind::Build,
            Spec::BaseImage(_) => Kind::BaseImage,
        }
    }

    /// The lane it belongs on; decided by the body, never by where a message was found.
    pub fn lane(&self) -> Lane {
        let kind = self.kind();
        Lane { kind, arch: if kind.per_arch() { self.arch() } else { None } }
    }

    /// The image name it is about.
    pub fn name(&self) -> &ImageName {
        match self {
            Spec::Upload(upload) => &upload.name,
            Spec::Prune(prune) => &prune.name,
            Spec::Snapshot(snapshot) => &snapshot.name,
            Spec::Build(build) => &build.name,
            Spec::BaseImage(base) => &base.name,
        }
    }

    /// The cloud it acts on.
    pub fn cloud(&self) -> &CloudName {
        match self {
            Spec::Upload(upload) => &upload.cloud,
            Spec::Prune(prune) => &prune.cloud,
            Spec::Snapshot(snapshot) => &snapshot.cloud,
            Spec::Build(build) => &build.cloud,
            Spec::BaseImage(base) => &base.cloud,
        }
    }

    /// The architecture it is about, where it names one.
    pub fn arch(&self) -> Option<Arch> {
        match self {
            Spec::Upload(upload) => Some(upload.arch),
            Spec::Prune(prune) => prune.arch,
            Spec::Snapshot(snapshot) => Some(snapshot.arch),
            Spec::Build(build) => Some(build.arch),
            Spec::BaseImage(base) => Some(base.arch),
        }
    }
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 5] = [Kind::Upload, Kind::Prune, Kind::Snapshot, Kind::Build, Kind::BaseImage];

    /// The word used in messages and lanes.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Upload => "upload",
            Kind::Prune => "prune",
            Kind::Snapshot => "snapshot",
            Kind::Build => "build",
            Kind::BaseImage => "base-image",
        }
    }

    /// Whether its work is one transfer, which its cloud shows while it goes on.
    pub fn is_transfer(self) -> bool {
        match self {
            Kind::Upload | Kind::BaseImage => true,
            Kind::Prune | Kind::Snapshot | Kind::Build => false,
        }
    }

    /// Whether jobs of this kind queue per architecture.
    pub fn per_arch(self) -> bool {
        match self {
            Kind::Upload | Kind::Snapshot | Kind::Build | Kind::BaseImage => true,
            Kind::Prune => false,
        }
    }
}

impl Lane {
    /// Every lane, in a fixed order.
    pub fn all() -> Vec<Lane> {
        Kind::ALL.into_iter().flat_map(|kind| Lane::of(kind, &Arch::ALL)).collect()
    }

    /// The lanes that a worker of `kind` and `archs` serves.
    pub fn of(kind: Kind, archs: &[Arch]) -> Vec<Lane> {
        if kind.per_arch() {
            archs.iter().map(|arch| Lane { kind, arch: Some(*arch) }).collect()
        } else {
            vec![Lane { kind, arch: None }]
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Kind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| UnknownKind { given: word.chars().take(40).collect() })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.kind, self.arch.map_or("any", Arch::as_str))
    }
}
