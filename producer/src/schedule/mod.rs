//! Periodic work: which images should be where ([`mod@file`]), and which of them are missing or stale ([`plan`]). Both pure;
//! the command reads the log and the clouds for them.

pub(crate) mod file;
pub(crate) mod plan;
pub(crate) mod slot;

use imagewright_common::arch::Arch;
use imagewright_common::job::{CloudName, ImageName, Spec};
use jiff::SignedDuration;

/// One image that should be on one cloud, and how old it may become.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: ImageName,
    pub(crate) arch: Arch,
    /// Where it is made.
    pub(crate) cloud: CloudName,
    /// Where a build sends copies.
    pub(crate) also: Vec<CloudName>,
    /// The job that makes it.
    pub(crate) spec: Spec,
    pub(crate) interval: SignedDuration,
}

impl Target {
    /// The clouds that it should be on.
    pub(crate) fn clouds(&self) -> impl Iterator<Item = &CloudName> {
        std::iter::once(&self.cloud).chain(&self.also)
    }
}
