//! The `snapshot` job: find the server, stop it if that is asked, have its image made, start it again.

use std::collections::BTreeMap;
use std::time::Duration;

use imagewright_common::job::{Kind, Message, SnapshotSpec};
use imagewright_common::openstack::{CloudErrorKind, Glance, Image, Nova, Server};
use imagewright_common::store::Observer;
use imagewright_common::store::snapshot::{self, Snapshot};
use imagewright_common::store::stamp::{self, Stamp};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::progress::{self, Next};
use super::{Tools, prune_child};
use crate::verdict::{Ended, Failure, Sort};

/// Between looks at the cloud.
const LOOK: Duration = Duration::from_secs(5);

/// A guest that ignores ACPI is switched off by Nova after 60 s by default (`shutdown_timeout`).
const STOP_DEADLINE: SignedDuration = SignedDuration::from_mins(10);

/// How far the job has come.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    /// The server that was found.
    server: Option<String>,
    /// We stop it, so we start it again.
    stops: bool,
    /// Since when it is waited for, in this phase.
    since: Option<Timestamp>,
    /// It is at rest, or need not be.
    at_rest: bool,
    /// How often the image was asked for.
    #[serde(default)]
    asked: u32,
    /// The image is whole and ours.
    image: Option<String>,
    /// Why there will be no image.
    failure: Option<String>,
}

pub(super) async fn advance(tools: &Tools, message: &Message, spec: &SnapshotSpec, observer: &Observer) -> Ended {
    let ended = match Work::new(tools, message, spec).await {
        Ok(work) => work.advance(observer).await,
        Err(failure) => Err(failure),
    };
    observer.leave();
    ended.unwrap_or_else(Ended::Failed)
}

/// Leave no half image, and start a server again that we stopped, which Nova refuses while it makes the image.
pub(super) async fn abandon(tools: &Tools, message: &Message, spec: &SnapshotSpec) -> Result<(), Failure> {
    let work = Work::new(tools, message, spec).await?;
    let Some(server) = &work.state.server else { return Ok(()) };
    let dropped = work.drop_image(server).await;
    if work.state.stops {
        work.start(server).await?;
    }
    dropped
}

/// Why a server that we stopped is not started again yet, though it can be: until it is, the job has not ended.
pub(super) async fn owed(tools: &Tools, message: &Message, spec: &SnapshotSpec) -> Option<Failure> {
    if !progress::load::<State>(message).is_ok_and(|state| state.stops) {
        return None;
    }
    let can_be = |failure: &Failure| matches!(failure.sort, Sort::Transient { .. } | Sort::Busy { .. });
    abandon(tools, message, spec).await.err().filter(can_be)
}

struct Work<'a> {
    tools: &'a Tools,
    message: &'a Message,
    spec: &'a SnapshotSpec,
    nova: Nova,
    glance: Glance,
    state: State,
}

impl<'a> Work<'a> {
    async fn new(tools: &'a Tools, message: &'a Message, spec: &'a SnapshotSpec) -> Result<Work<'a>, Failure> {
        let glance = tools.pool.glance(&spec.cloud).await?;
        let nova = Nova::new(glance.session().clone());
        Ok(Work { tools, message, spec, nova, glance, state: progress::load(message)? })
    }

    async fn advance(self, observer: &Observer) -> Result<Ended, Failure> {
        if self.state.failure.is_some() || self.state.image.is_some() {
            observer.enter("start");
            return self.finish().await;
        }
        let Some(server) = self.state.server.clone() else {
            observer.enter("find");
            return self.find().await;
        };
        if !self.state.at_rest {
            observer.enter("stop");
            return self.stop(&server).await;
        }
        observer.enter("snapshot");
        self.make(&server).await
    }

    fn next(&self, after: Duration, why: impl Into<String>) -> Result<Ended, Failure> {
        Next { after, why: why.into(), children: Vec::new() }.with(self.message, &self.state)
    }

    async fn find(mut self) -> Result<Ended, Failure> {
        let server = named(&self.nova, &self.spec.server).await?;
        let policy = self.tools.policy();
        if !policy.servers.fits(&server.name) && !policy.servers.fits(&server.id) {
            return Err(rejected("spec.server", "the policy does not allow images of this server (servers)"));
        }
        self.state.stops = self.spec.stop && server.status == "ACTIVE";
        self.state.at_rest = !self.state.stops;
        self.state.server = Some(server.id);
        self.state.since = Some(Timestamp::now());
        self.next(Duration::ZERO, "the server was found")
    }

    async fn stop(mut self, id: &str) -> Result<Ended, Failure> {
        let server = self.nova.server(id).await.map_err(super::failure::cloud)?;
        if server.status == "SHUTOFF" {
            (self.state.at_rest, self.state.since) = (true, Some(Timestamp::now()));
            return self.next(Duration::ZERO, "the server is off");
        }
        if self.is_late(STOP_DEADLINE) {
            return self.give_up(format!("the server is still {} after 10 minutes", server.status));
        }
        if server.task_state.is_none() {
            match self.nova.stop(id).await {
                Ok(()) => {}
                Err(error) if error.kind == CloudErrorKind::Conflict => {}
                Err(error) => return Err(super::failure::cloud(error)),
            }
        }
        self.next(LOOK, "the server stops")
    }

    async fn make(mut self, server: &str) -> Result<Ended, Failure> {
        let properties = self.properties();
        let (name, asked) = (self.spec.name.as_str(), &mut self.state.asked);
        match snapshot::make(&self.nova, &self.glance, server, name, &properties, asked).await? {
            Snapshot::Underway(why) if self.is_late(snapshot::DEADLINE) => {
                self.give_up(format!("no image within an hour: {why}"))
            }
            Snapshot::Underway(_) => self.next(LOOK, "the cloud makes the image"),
            Snapshot::Broken(why) => self.give_up(why),
            Snapshot::Whole(image) => {
                let image = snapshot::publish(&self.glance, &image, &properties).await?;
                self.state.image = Some(image.id);
                self.next(Duration::ZERO, "the image is there")
            }
        }
    }

    async fn finish(self) -> Result<Ended, Failure> {
        if self.state.stops
            && let Some(server) = &self.state.server
        {
            self.start(server).await?;
        }
        match &self.state.image {
            None => {
                let why = self.state.failure.clone().unwrap_or_default();
                Err(Failure::plain(Sort::Rejected { field: None }, why))
            }
            Some(id) => {
                let image = self.glance.get(id).await.map_err(super::failure::cloud)?.value;
                Ok(succeeded(self.message, self.spec, &image))
            }
        }
    }

    async fn drop_image(&self, server: &str) -> Result<(), Failure> {
        match snapshot::find(&self.glance, server, &self.message.id.to_string()).await? {
            Some(image) if !stamp::is_verified(&image) => {
                self.glance.delete(&image.id).await.map(drop).map_err(super::failure::cloud)
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn start(&self, server: &str) -> Result<(), Failure> {
        match self.nova.start(server).await {
            Ok(()) => Ok(()),
            // It runs, or Nova still reads its disk, or it has not gone off yet: then it is `ACTIVE` with a task.
            Err(error) if error.kind == CloudErrorKind::Conflict => {
                let seen = self.nova.server(server).await.map_err(super::failure::cloud)?;
                let busy = Failure::plain(Sort::Busy { after: Some(LOOK) }, error.to_string());
                if seen.status == "ACTIVE" && seen.task_state.is_none() { Ok(()) } else { Err(busy) }
            }
            Err(error) if error.kind == CloudErrorKind::NotFound => Ok(()),
            Err(error) => Err(super::failure::cloud(error)),
        }
    }

    fn give_up(mut self, why: String) -> Result<Ended, Failure> {
        self.state.failure = Some(why.clone());
        self.next(Duration::ZERO, why)
    }

    fn is_late(&self, limit: SignedDuration) -> bool {
        self.state.since.is_some_and(|since| Timestamp::now().duration_since(since) > limit)
    }

    fn properties(&self) -> BTreeMap<String, String> {
        Stamp {
            job: self.message.id,
            kind: Kind::Snapshot,
            asked_at: self.message.asked_at(Timestamp::now()),
            namespace: self.tools.namespace.clone(),
            arch: self.spec.arch,
        }
        .of_snapshot()
    }
}

/// The server of this id or exactly this name.
async fn named(nova: &Nova, wanted: &str) -> Result<Server, Failure> {
    let mut found = nova.servers(wanted).await.map_err(super::failure::cloud)?;
    found.retain(|server| server.name == wanted);
    match (found.pop(), found.len()) {
        (Some(server), 0) => Ok(server),
        (Some(_), more) => {
            Err(rejected("spec.server", &format!("{} servers are called {wanted:?}: give the id of one", more + 1)))
        }
        (None, _) => match nova.server(wanted).await {
            Ok(server) => Ok(server),
            Err(error) if error.kind == CloudErrorKind::NotFound => {
                Err(rejected("spec.server", &format!("the project has no server called {wanted:?}, nor with this id")))
            }
            Err(error) => Err(super::failure::cloud(error)),
        },
    }
}

fn rejected(field: &str, reason: &str) -> Failure {
    Failure::plain(Sort::Rejected { field: Some(field.to_owned()) }, format!("{field}: {reason}"))
}

fn succeeded(message: &Message, spec: &SnapshotSpec, image: &Image) -> Ended {
    let prune = prune_child(message, &spec.name, &spec.cloud, spec.keep, spec.arch);
    let result = json!({
        "image_id": image.id,
        "size": image.size,
        "disk_format": image.disk_format,
        "os_hash_algo": image.os_hash_algo,
        "os_hash_value": image.os_hash_value,
        "children": [prune.id],
    });
    Ended::Succeeded { result, children: vec![prune] }
}
