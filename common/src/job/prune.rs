//! The `prune` job.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::words::{CloudName, ImageName, Keep};
use crate::arch::Arch;

/// Keep the newest revisions of an image, per architecture, on one cloud, and remove our dead leftovers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PruneSpec {
    /// Which image.
    pub name: ImageName,
    /// On which cloud.
    pub cloud: CloudName,
    /// How many revisions stay, 1 to 99.
    pub keep: Keep,
    /// Only this architecture; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
}
