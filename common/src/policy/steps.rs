//! How long the steps of a build may last.

use jiff::SignedDuration;
use serde::Deserialize;

/// The longest that each step may last that waits for something; it ends the build.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct StepLimits {
    /// Until a server is `ACTIVE`.
    pub wait_active: SignedDuration,
    /// Until it lets us in.
    pub wait_ssh: SignedDuration,
    /// Until the content of the image is installed.
    pub wait_cloud_init: SignedDuration,
    /// The script of the job.
    pub script: SignedDuration,
    /// The check of the image.
    pub check: SignedDuration,
    /// Until all traces are removed and the server is off.
    pub clean: SignedDuration,
    /// Until the image is made.
    pub snapshot: SignedDuration,
    /// Until servers, key pair and group are gone.
    pub teardown: SignedDuration,
}

impl Default for StepLimits {
    fn default() -> Self {
        let minutes = SignedDuration::from_mins;
        StepLimits {
            wait_active: minutes(20),
            wait_ssh: minutes(20),
            wait_cloud_init: minutes(30),
            script: minutes(60),
            check: minutes(30),
            clean: minutes(20),
            snapshot: minutes(60),
            teardown: minutes(30),
        }
    }
}

impl StepLimits {
    /// A step that would have less than a second.
    pub(super) fn too_short(&self) -> Option<&'static str> {
        let StepLimits { wait_active, wait_ssh, wait_cloud_init, script, check, clean, snapshot, teardown } = self;
        let all = [
            ("wait-active", wait_active),
            ("wait-ssh", wait_ssh),
            ("wait-cloud-init", wait_cloud_init),
            ("script", script),
            ("check", check),
            ("clean", clean),
            ("snapshot", snapshot),
            ("teardown", teardown),
        ];
        all.into_iter().find(|(_, limit)| limit.as_secs() < 1).map(|(step, _)| step)
    }
}
