//! The `build` job: short steps, each of which asks the cloud, acts once and returns. Every step may run twice, and on
//! any worker: names are those of the job, keys are derived from it, and what is there is found before it is made.

mod boot;
mod choose;
mod image;
mod inside;
mod manifest;
mod plan;
mod state;
mod teardown;
mod unchanged;

use std::collections::BTreeMap;
use std::time::Duration;

use imagewright_common::job::{BuildSpec, Kind, Message};
use imagewright_common::openstack::{Glance, Neutron, Nova};
use imagewright_common::store::Observer;
use imagewright_common::store::stamp::Stamp;
use imagewright_common::store::withdraw::Withdrawn;
use jiff::{SignedDuration, Timestamp};

use self::state::{Names, Phase, State};
use super::Tools;
use super::progress::{self, Next};
use crate::builders::Keys;
use crate::verdict::{Before, Ended, Failure, Sort};

/// Between looks at the cloud: soon while a step is young, for what takes a moment. The ladder has rungs of these lengths.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_SOON: Duration = Duration::from_secs(1);

/// How names begin when nobody says otherwise.
const PREFIX: &str = "imagewright";

pub(super) async fn advance(tools: &Tools, message: &Message, spec: &BuildSpec, observer: &Observer) -> Ended {
    let ended = match Build::new(tools, message, spec).await {
        Ok(build) => build.advance(observer).await,
        Err(failure) => Err(failure),
    };
    observer.leave();
    ended.unwrap_or_else(Ended::Failed)
}

/// Remove what the build has on its cloud, unless its image is a revision already.
pub(super) async fn withdraw(tools: &Tools, message: &Message, spec: &BuildSpec) -> Result<Withdrawn, Failure> {
    let build = Build::new(tools, message, spec).await?;
    // The copies of an image that was there before are jobs of their own, and are cancelled with this one.
    let has_copies = build.state.phase != Phase::Plan && !build.state.children.is_empty();
    if has_copies || build.published().await?.is_some() {
        return Ok(Withdrawn::TooLate);
    }
    build.drop_image().await?;
    if build.tear_down().await?.is_empty() { Ok(Withdrawn::Gone) } else { Ok(Withdrawn::Contended) }
}

/// The same for a build that is given up.
pub(super) async fn abandon(tools: &Tools, message: &Message, spec: &BuildSpec) -> Result<(), Failure> {
    let build = Build::new(tools, message, spec).await?;
    if build.published().await?.is_none() {
        build.drop_image().await?;
    }
    if build.state.phase == Phase::Teardown {
        // It was waited for long enough.
        return build.tear_down().await.map(drop);
    }
    build.tear_down_patiently().await
}

/// One build at work.
struct Build<'a> {
    tools: &'a Tools,
    message: &'a Message,
    spec: &'a BuildSpec,
    nova: Nova,
    neutron: Neutron,
    glance: Glance,
    names: Names,
    state: State,
}

impl<'a> Build<'a> {
    async fn new(tools: &'a Tools, message: &'a Message, spec: &'a BuildSpec) -> Result<Build<'a>, Failure> {
        let glance = tools.pool.glance(&spec.cloud).await?;
        let session = glance.session();
        let prefix = spec.prefix.as_ref().map_or(PREFIX, |prefix| prefix.as_str());
        Ok(Build {
            nova: Nova::new(session.clone()),
            neutron: Neutron::new(session.clone()),
            names: Names::of(message, prefix),
            state: progress::load(message)?,
            tools,
            message,
            spec,
            glance,
        })
    }

    async fn advance(mut self, observer: &Observer) -> Result<Ended, Failure> {
        let phase = self.state.phase;
        observer.enter(phase.word());
        self.state.since.get_or_insert_with(Timestamp::now);
        let ended = match phase {
            Phase::Plan | Phase::Access | Phase::Boot | Phase::CheckBoot if self.ended_before().is_some() => {
                self.fail("this build has ended before".to_owned(), None)
            }
            Phase::Plan => self.plan().await,
            Phase::Access => self.access().await,
            Phase::Boot | Phase::CheckBoot => self.boot().await,
            Phase::Active | Phase::CheckActive => self.wait_active().await,
            Phase::Login | Phase::CheckLogin => self.wait_login().await,
            Phase::CloudInit => self.wait_cloud_init().await,
            Phase::Script | Phase::Check => self.provision().await,
            Phase::Clean => self.clean().await,
            Phase::Snapshot => self.snapshot().await,
            Phase::Publish => self.publish().await,
            Phase::Teardown => return self.end().await,
        };
        let ended = match ended {
            // What the cloud will never do is no reason to leave servers behind: the end is reached through teardown.
            Err(Failure { sort: Sort::Rejected { field }, error, .. }) if phase != Phase::Plan => {
                self.fail(error, field)
            }
            ended => ended,
        };
        if self.state.failure.is_some()
            && phase != Phase::Publish
            && let Some(image) = self.published().await?
        {
            return self.go_by(image);
        }
        ended
    }

    fn next(&self, after: Duration, why: impl Into<String>) -> Result<Ended, Failure> {
        Next { after, why: why.into(), children: Vec::new() }.with(self.message, &self.state)
    }

    /// This phase is done.
    fn enter(&mut self, phase: Phase) -> Result<Ended, Failure> {
        self.state.enter(phase);
        self.next(Duration::ZERO, format!("{} is next", phase.word()))
    }

    /// Look again soon, unless it has taken too long.
    fn wait(&mut self, why: String) -> Result<Ended, Failure> {
        if self.is_late() {
            let (limit, word) = (self.limit(), self.state.phase.word());
            return self.fail(format!("{word}: {why}, for more than {limit:#}"), None);
        }
        self.look_again(why)
    }

    fn look_again(&self, why: String) -> Result<Ended, Failure> {
        let is_young = self.state.age() < SignedDuration::try_from(LOOK).unwrap_or_default();
        self.next(if is_young { LOOK_SOON } else { LOOK }, why)
    }

    /// The longest that this phase may last.
    fn limit(&self) -> SignedDuration {
        self.state.phase.limit(&self.tools.policy().step_limits)
    }

    fn is_late(&self) -> bool {
        self.state.age() > self.limit()
    }

    fn fail(&mut self, error: String, field: Option<String>) -> Result<Ended, Failure> {
        self.state.fail(error.clone(), field);
        self.next(Duration::ZERO, error)
    }

    fn keys(&self) -> Result<Keys, Failure> {
        let keys = self.tools.builders.keys(self.message.id, self.message.run());
        keys.map_err(|error| Failure::plain(Sort::Rejected { field: None }, format!("no keys: {error}")))
    }

    /// How it ended when its message came for the first time, as far as was heard.
    fn ended_before(&self) -> Option<Before> {
        self.tools.ledger.built(self.message)
    }

    /// The plan, which every phase after the first has.
    fn planned(&self) -> Result<&state::Plan, Failure> {
        self.state.plan.as_ref().ok_or_else(|| {
            let field = Some("progress.state.plan".to_owned());
            Failure::plain(Sort::Rejected { field }, "progress.state.plan: missing; only workers write it")
        })
    }

    fn properties(&self) -> BTreeMap<String, String> {
        Stamp {
            job: self.message.id,
            kind: Kind::Build,
            asked_at: self.message.asked_at(Timestamp::now()),
            namespace: self.tools.namespace.clone(),
            arch: self.spec.arch,
        }
        .of_snapshot()
    }
}
