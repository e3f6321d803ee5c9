//! Key pair, security group, and the server itself.

use std::time::Duration;

use imagewright_common::openstack::{CloudErrorKind, NewServer, Server};
use jiff::SignedDuration;

use super::plan::{login, rejected};
use super::state::Phase;
use super::{Build, Failure, LOOK_SOON};
use crate::content;
use crate::steps::failure::cloud;
use crate::verdict::Ended;

/// After this long no server is made any more that Nova calls as old as one that is there.
const ALIKE: SignedDuration = SignedDuration::from_secs(2);

/// The last lines of a console that an error repeats.
const CONSOLE_TAIL: usize = 40;

impl Build<'_> {
    /// A key pair and a group of this build alone. Port 22 is open to the workers, nothing else to anybody.
    pub(super) async fn access(&mut self) -> Result<Ended, Failure> {
        let policy = self.tools.policy();
        if policy.ssh_from.is_empty() {
            let reason = "the policy of this worker does not say where workers log in from (ssh_from)";
            return Err(rejected("spec.kind", reason));
        }
        let name = &self.names.builder;
        match self.nova.create_keypair(name, &self.keys()?.user.public).await {
            Ok(()) => {}
            Err(error) if error.kind == CloudErrorKind::Conflict => {}
            Err(error) => return Err(cloud(error)),
        }
        let mut groups = self.neutron.security_groups(name).await.map_err(cloud)?;
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        let group = match groups.into_iter().next() {
            Some(group) => group,
            None => {
                let text = format!("imagewright build {} in {}", self.message.id, self.tools.namespace);
                self.neutron.create_security_group(name, &text).await.map_err(cloud)?
            }
        };
        for block in &policy.ssh_from {
            self.neutron.allow_tcp(&group.id, policy.ssh_port, block).await.map_err(cloud)?;
        }
        self.enter(Phase::Boot)
    }

    /// Find the server, or ask for it. Two copies of the message at once may make two of them: which is the builder is
    /// settled while it is waited for, and the other goes with the teardown.
    pub(super) async fn boot(&mut self) -> Result<Ended, Failure> {
        let (name, is_check) = self.role();
        let name = name.to_owned();
        let server = match self.servers(&name).await?.into_iter().next() {
            Some(server) => server.id,
            None => match self.published().await? {
                Some(image) => return self.go_by(image),
                None => self.create(&name, is_check).await?,
            },
        };
        self.settle_on(server);
        self.enter(if is_check { Phase::CheckActive } else { Phase::Active })
    }

    fn settle_on(&mut self, server: String) {
        if self.role().1 {
            self.state.checker = Some(server);
        } else {
            self.state.server = Some(server);
        }
    }

    /// Whose server this phase is about: the name, and whether it is the one that checks the image.
    pub(super) fn role(&self) -> (&str, bool) {
        let is_check = self.state.phase.is_of_check();
        (if is_check { &self.names.checker } else { &self.names.builder }, is_check)
    }

    /// Servers of exactly this name, the oldest first.
    pub(super) async fn servers(&self, name: &str) -> Result<Vec<Server>, Failure> {
        let mut servers = self.nova.servers(name).await.map_err(cloud)?;
        servers.retain(|server| server.name == name && server.status != "DELETED" && server.status != "SOFT_DELETED");
        servers.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        Ok(servers)
    }

    async fn create(&self, name: &str, is_check: bool) -> Result<String, Failure> {
        let plan = self.planned()?;
        let mut groups = self.neutron.security_groups(&self.names.builder).await.map_err(cloud)?;
        groups.sort_by(|a, b| a.id.cmp(&b.id));
        let Some(group) = groups.into_iter().next() else {
            return Err(rejected("spec.cloud", "the security group of this build was removed by somebody else"));
        };
        let image = if is_check { self.state.image.clone().unwrap_or_default() } else { plan.base.clone() };
        // Who looks at the image needs no more than to get in.
        let user_data =
            if is_check { content::login_only(&login(&self.keys()?)) } else { self.planned_user_data(plan)? };
        let server = NewServer {
            name: name.to_owned(),
            image,
            flavor: plan.flavor.clone(),
            network: plan.network.clone(),
            key_name: self.names.builder.clone(),
            security_group: group.id,
            user_data,
            metadata: self.properties(),
        };
        self.nova.create_server(&server).await.map_err(cloud)
    }

    /// The server of this phase.
    pub(super) async fn server(&self) -> Result<Server, Failure> {
        let (_, is_check) = self.role();
        let id = if is_check { &self.state.checker } else { &self.state.server };
        let id = id.as_deref().unwrap_or_default();
        match self.nova.server(id).await {
            Ok(server) => Ok(server),
            Err(error) if error.kind == CloudErrorKind::NotFound => {
                Err(rejected("spec.cloud", format!("server {id} was deleted by somebody else")))
            }
            Err(error) => Err(cloud(error)),
        }
    }

    pub(super) async fn wait_active(&mut self) -> Result<Ended, Failure> {
        let server = self.server().await?;
        if server.is_broken() {
            return self.fail(broken(&server), None);
        }
        if server.status != "ACTIVE" {
            return self.wait(format!("the server is {}", server.status));
        }
        if self.state.age() < ALIKE {
            return self.next(LOOK_SOON, "whether there is another server of this build");
        }
        // Of two that were asked for at once, whoever looks now goes on with the same one: Nova's times are in whole
        // seconds, and after two of them nobody makes one that is as old.
        let (name, is_check) = self.role();
        let oldest = self.servers(name).await?.into_iter().next();
        if let Some(oldest) = oldest.filter(|oldest| oldest.id != server.id) {
            self.settle_on(oldest.id);
            return self.next(Duration::ZERO, "another server of this build is older");
        }
        self.enter(if is_check { Phase::CheckLogin } else { Phase::Login })
    }

    /// What the console shows last, for whoever has to find out why.
    pub(super) async fn console_tail(&self, server: &str) -> String {
        let text = match self.nova.console(server).await {
            Ok(Some(text)) => text,
            Ok(None) => return String::new(),
            Err(error) => return format!("; its console cannot be read: {error}"),
        };
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let tail = lines.get(lines.len().saturating_sub(CONSOLE_TAIL)..).unwrap_or_default();
        format!("; its console ends with:\n{}", tail.join("\n"))
    }
}

pub(super) fn broken(server: &Server) -> String {
    let fault = server.fault.as_ref().map_or("no reason given", |fault| fault.message.as_str());
    format!("the server is {}: {fault}", server.status)
}
