//! Periodic work: which images should be where ([`mod@file`]), and which of them are missing or stale ([`plan`]). Both pure;
//! the command reads the log and the clouds for them.

pub(crate) mod file;
pub(crate) mod plan;
pub(crate) mod slot;

use imagewright_common::job::UploadSpec;
use jiff::SignedDuration;

/// One image that should be on one cloud, and how old it may become.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) spec: UploadSpec,
    pub(crate) interval: SignedDuration,
}
