//! How far a build has come. Everything else is asked of the cloud.

use imagewright_common::job::Message;
use imagewright_common::policy::StepLimits;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::content::Runner;

/// What a step that systemd limits on the server may last longer, until its end was seen.
const SPARE: SignedDuration = SignedDuration::from_mins(5);

/// What travels with the message of a build.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// Since when this phase lasts, by the clock of the worker that began it.
    pub(super) since: Option<Timestamp>,
    pub(super) plan: Option<Plan>,
    /// The builder.
    pub(super) server: Option<String>,
    /// The server that was booted from the image to check it.
    pub(super) checker: Option<String>,
    /// How much of the output of what runs there was taken over, in bytes.
    pub(super) offset: u64,
    /// Everything was installed; what is left is to clean.
    pub(super) provisioned: bool,
    /// SHA-256 of the list of packages; empty where there is none.
    pub(super) packages: Option<String>,
    /// Cleaning has begun, which ends with the server off.
    pub(super) cleaning: bool,
    /// How often the image was asked for.
    #[serde(default)]
    pub(super) asked: u32,
    /// The image; while it is planned, the one that was there already and still goes to some clouds.
    pub(super) image: Option<String>,
    /// The jobs that were enqueued.
    pub(super) children: Vec<Uuid>,
    /// Why there will be no image.
    pub(super) failure: Option<Fault>,
}

/// What went wrong for good.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    pub(super) error: String,
    pub(super) field: Option<String>,
}

/// What was found out at the beginning, once, so that the build does not change under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The Glance id of the base.
    pub(super) base: String,
    /// Its digest.
    pub(super) base_digest: String,
    pub(super) flavor: String,
    pub(super) network: String,
    /// SHA-256 of the script.
    pub(super) script: Option<String>,
    pub(super) runner: Option<Runner>,
    /// SHA-256 of the content, as it was rendered for this build.
    pub(super) template: String,
    /// SHA-256 over all that decides what the image becomes.
    pub(super) inputs: String,
}

/// The steps of a build, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// Find base, flavor, network; fetch the script; is there anything to do?
    #[default]
    Plan,
    /// Key pair and security group.
    Access,
    /// Ask for the builder.
    Boot,
    /// Until it is ACTIVE.
    Active,
    /// Until it lets us in.
    Login,
    /// Until cloud-init is done.
    CloudInit,
    /// The script of the job.
    Script,
    /// Remove all traces, and power off.
    Clean,
    /// Have the image made.
    Snapshot,
    /// Boot a server from it, and so on.
    CheckBoot,
    CheckActive,
    CheckLogin,
    Check,
    /// Make it a revision, and enqueue its copies.
    Publish,
    /// Remove servers, key pair and group.
    Teardown,
}

impl Phase {
    /// Whether it is about the server that checks the image, not the one that it is made of.
    pub(super) fn is_of_check(self) -> bool {
        match self {
            Phase::CheckBoot | Phase::CheckActive | Phase::CheckLogin | Phase::Check => true,
            Phase::Plan
            | Phase::Access
            | Phase::Boot
            | Phase::Active
            | Phase::Login
            | Phase::CloudInit
            | Phase::Script
            | Phase::Clean
            | Phase::Snapshot
            | Phase::Publish
            | Phase::Teardown => false,
        }
    }

    /// The word for metrics and errors.
    pub(super) fn word(self) -> &'static str {
        match self {
            Phase::Plan => "plan",
            Phase::Access => "access",
            Phase::Boot => "boot",
            Phase::Active => "wait-active",
            Phase::Login => "wait-ssh",
            Phase::CloudInit => "wait-cloud-init",
            Phase::Script => "script",
            Phase::Clean => "clean",
            Phase::Snapshot => "snapshot",
            Phase::CheckBoot => "check-boot",
            Phase::CheckActive => "check-wait-active",
            Phase::CheckLogin => "check-wait-ssh",
            Phase::Check => "check",
            Phase::Publish => "publish",
            Phase::Teardown => "teardown",
        }
    }

    /// The longest that it may last.
    pub(super) fn limit(self, limits: &StepLimits) -> SignedDuration {
        match self {
            // These wait for nothing but what the cloud refuses for a while, which the deadline of the job ends.
            Phase::Plan | Phase::Access | Phase::Boot | Phase::CheckBoot | Phase::Publish => SignedDuration::MAX,
            Phase::Active | Phase::CheckActive => limits.wait_active,
            Phase::Login | Phase::CheckLogin => limits.wait_ssh,
            Phase::CloudInit => limits.wait_cloud_init,
            // systemd ends it first.
            Phase::Script => limits.script.saturating_add(SPARE),
            Phase::Check => limits.check.saturating_add(SPARE),
            Phase::Clean => limits.clean.saturating_add(SPARE),
            Phase::Snapshot => limits.snapshot,
            Phase::Teardown => limits.teardown,
        }
    }
}

impl State {
    /// On to the next phase.
    pub(super) fn enter(&mut self, phase: Phase) {
        (self.phase, self.since, self.offset) = (phase, Some(Timestamp::now()), 0);
    }

    /// Nothing more can come of it but its end.
    pub(super) fn fail(&mut self, error: String, field: Option<String>) {
        if self.failure.is_none() {
            self.failure = Some(Fault { error, field });
        }
        self.enter(Phase::Teardown);
    }

    /// How long the phase has lasted.
    pub(super) fn age(&self) -> SignedDuration {
        self.since.map(|since| Timestamp::now().duration_since(since)).unwrap_or_default()
    }
}

/// The names of what a run of a build has on its cloud. Server, key pair and group are called alike; the job is in it.
pub(super) struct Names {
    pub(super) builder: String,
    pub(super) checker: String,
}

impl Names {
    pub(super) fn of(message: &Message, prefix: &str) -> Names {
        let tail = format!("{}-{}", message.id, message.run());
        Names { builder: format!("{prefix}-build-{tail}"), checker: format!("{prefix}-check-{tail}") }
    }
}
