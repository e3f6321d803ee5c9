//! What a build does on its servers.

use std::time::Duration;

use imagewright_common::event::What;
use imagewright_common::job::SecretName;
use imagewright_common::policy::StepLimits;
use secrecy::SecretString;

use super::boot::broken;
use super::plan::rejected;
use super::state::Phase;
use super::{Build, Failure, Sort};
use crate::guest::output::{Blots, Reading};
use crate::guest::unit::{Seen, Stands, Unit, look_at_cloud_init};
use crate::guest::{Guest, Said, Unreachable, quoted};
use crate::steps::failure::cloud;
use crate::verdict::Ended;

/// The most output of one script that the log keeps, in bytes.
const OUTPUT_MAX: u64 = 256 * 1024;

impl Build<'_> {
    pub(super) async fn wait_login(&mut self) -> Result<Ended, Failure> {
        let is_check = self.role().1;
        match self.ask("true").await? {
            Ok(said) if said.code == Some(0) => self.enter(if is_check { Phase::Check } else { Phase::CloudInit }),
            Ok(said) => self.not_in(format!("root is refused: {}", said.stderr.trim())).await,
            Err(Unreachable(why)) => self.not_in(why).await,
        }
    }

    /// Nobody answers, or not as they should.
    async fn not_in(&mut self, why: String) -> Result<Ended, Failure> {
        tracing::debug!(job.id = %self.message.id, why, "no login");
        if self.is_late() {
            let server = self.server().await?;
            let tail = self.console_tail(&server.id).await;
            return self.fail(format!("{}: no login at the server: {why}{tail}", self.state.phase.word()), None);
        }
        self.wait("until the server lets us in".to_owned())
    }

    /// The content of the image is installed while the server boots.
    pub(super) async fn wait_cloud_init(&mut self) -> Result<Ended, Failure> {
        let (address, keys, port) = (self.address().await?, self.keys()?, self.tools.policy().ssh_port);
        let guest = Guest { address: &address, port, keys: &keys };
        let seen = match look_at_cloud_init(&guest, &self.reading(&Blots::none())).await {
            Ok(seen) => seen,
            Err(Unreachable(why)) => return self.not_in(why).await,
        };
        let more = self.take_over(&seen).await?;
        match seen.stands {
            _ if more => self.next(Duration::ZERO, "cloud-init runs"),
            Stands::Well if self.state.provisioned => self.enter(Phase::Clean),
            Stands::Well if self.spec.script.is_some() => self.enter(Phase::Script),
            Stands::Well => self.enter_clean(),
            Stands::Badly(how) => {
                let server = self.server().await?;
                let tail = self.console_tail(&server.id).await;
                let log = format!("`imagewright log {}` shows what it said", self.message.id);
                self.fail(format!("cloud-init failed: {how}; {log}{tail}"), None)
            }
            Stands::Runs | Stands::NotBegun => self.wait("cloud-init runs".to_owned()),
        }
    }

    fn enter_clean(&mut self) -> Result<Ended, Failure> {
        self.state.provisioned = true;
        self.enter(Phase::Clean)
    }

    /// What runs in this phase, under systemd.
    fn unit(&self) -> Unit {
        let policy = self.tools.policy();
        unit_of(self.state.phase, &policy.step_limits)
    }

    /// Run the script, or the check, to its end.
    pub(super) async fn provision(&mut self) -> Result<Ended, Failure> {
        let is_check = self.state.phase == Phase::Check;
        let unit = self.unit();
        let (address, keys, port) = (self.address().await?, self.keys()?, self.tools.policy().ssh_port);
        let guest = Guest { address: &address, port, keys: &keys };
        let secrets = self.secrets()?;
        let blots = Blots::of(&secrets);
        let seen = match unit.look(&guest, &self.reading(&blots)).await {
            Ok(seen) => seen,
            Err(Unreachable(why)) => return self.not_in(why).await,
        };
        let word = self.state.phase.word();
        if seen.stands == Stands::NotBegun {
            let text = self.text().await?;
            return match unit.begin(&guest, &text, &secrets).await {
                Ok(said) if said.code == Some(0) => self.wait(format!("the {word} runs")),
                Ok(said) => self.fail(format!("the {word} could not be begun: {}", said.stderr.trim()), None),
                Err(Unreachable(why)) => self.not_in(why).await,
            };
        }
        let more = self.take_over(&seen).await?;
        match seen.stands {
            // Read to the end before it is judged.
            _ if more => self.next(Duration::ZERO, format!("the {word} runs")),
            Stands::Well if is_check => self.enter(Phase::Publish),
            Stands::Well => self.enter_clean(),
            Stands::Badly(how) => {
                let field = format!("spec.{word}");
                let log = format!("`imagewright log {}` shows what it said", self.message.id);
                self.fail(format!("{field}: the {word} failed: {how}; {log}"), Some(field))
            }
            Stands::Runs | Stands::NotBegun => self.wait(format!("the {word} runs")),
        }
    }

    /// What is taken over with the next look.
    fn reading<'a>(&self, blots: &'a Blots) -> Reading<'a> {
        Reading { offset: self.state.offset, cut: self.state.offset >= OUTPUT_MAX, blots }
    }

    /// Put what was written since the last look into the log; whether there may be more.
    async fn take_over(&mut self, seen: &Seen) -> Result<bool, Failure> {
        let was_cut = self.state.offset >= OUTPUT_MAX;
        let has_ended = matches!(seen.stands, Stands::Well | Stands::Badly(_));
        if seen.output.is_empty() || (was_cut && !has_ended) {
            return Ok(false);
        }
        let mut text = seen.output.clone();
        self.state.offset = if was_cut { self.state.offset } else { seen.offset };
        if self.state.offset >= OUTPUT_MAX && !was_cut {
            text.push_str("\n[more than 256 KiB: only what it writes last will follow]\n");
        }
        let step = self.state.phase.word().to_owned();
        self.tools.say(self.message, What::Output { step, text }).await?;
        Ok(!was_cut)
    }

    /// What this phase runs. The policy allowed the secrets of the script when the build was planned, and is asked again.
    async fn text(&self) -> Result<Vec<u8>, Failure> {
        if self.state.phase == Phase::Check {
            let command = self.spec.check.as_deref().unwrap_or("true");
            return Ok(format!("#!/bin/sh\nexec /bin/sh -c {}\n", quoted(command)).into_bytes());
        }
        match &self.spec.script {
            Some(script) => self.script(script).await,
            None => Ok(Vec::new()),
        }
    }

    /// What the script is given, or was.
    fn secrets(&self) -> Result<Vec<(SecretName, SecretString)>, Failure> {
        let (Phase::Script, Some(script)) = (self.state.phase, &self.spec.script) else { return Ok(Vec::new()) };
        let read = |name: &SecretName| {
            let secret = self.tools.builders.secret(name);
            let secret = secret.map_err(|error| rejected("spec.script.secrets", format!("{name}: {error:#}")));
            Ok((name.clone(), secret?))
        };
        script.secrets.iter().map(read).collect()
    }

    /// Remove every trace. The server switches itself off when that is done, and only then; one that is off before
    /// cleaning was seen to begin is started again.
    pub(super) async fn clean(&mut self) -> Result<Ended, Failure> {
        let server = self.server().await?;
        if server.is_broken() {
            return self.fail(broken(&server), None);
        }
        if server.status == "SHUTOFF" && (self.state.cleaning || self.is_asked_for().await?) {
            return self.enter(Phase::Snapshot);
        }
        if server.status == "SHUTOFF" {
            self.nova.start(&server.id).await.map_err(cloud)?;
            return self.enter(Phase::Active);
        }
        let waits = "the server is cleaned".to_owned();
        if self.state.packages.is_none() && !self.state.cleaning {
            return match self.list_packages().await? {
                Ok(()) => self.next(Duration::ZERO, waits),
                Err(Unreachable(why)) => self.not_in(why).await,
            };
        }
        let (address, keys, port) = (self.address().await?, self.keys()?, self.tools.policy().ssh_port);
        let guest = Guest { address: &address, port, keys: &keys };
        let unit = self.unit();
        match unit.look(&guest, &Reading { offset: 0, cut: false, blots: &Blots::none() }).await {
            Ok(Seen { stands: Stands::NotBegun, .. }) => {
                let text = include_str!("../../guest/clean.sh").replace("PUBLIC_KEY", &keys.user.public);
                match unit.begin(&guest, text.as_bytes(), &[]).await {
                    Ok(said) if said.code == Some(0) => self.state.cleaning = true,
                    Ok(said) => return self.fail(format!("cleaning could not be begun: {}", said.stderr.trim()), None),
                    Err(Unreachable(why)) => tracing::debug!(job.id = %self.message.id, why, "cleaning may have begun"),
                }
                self.wait(waits)
            }
            Ok(Seen { stands: Stands::Badly(how), output, .. }) => {
                self.fail(format!("the server could not be cleaned: {how}\n{}", output.trim()), None)
            }
            Ok(Seen { stands: Stands::Runs | Stands::Well, .. }) => {
                self.state.cleaning = true;
                self.wait(waits)
            }
            // Its user is gone, or it is off and Nova does not know yet.
            Err(Unreachable(_)) => self.wait(waits),
        }
    }

    pub(super) async fn ask(&self, script: &str) -> Result<Result<Said, Unreachable>, Failure> {
        let (address, keys, port) = (self.address().await?, self.keys()?, self.tools.policy().ssh_port);
        let guest = Guest { address: &address, port, keys: &keys };
        Ok(guest.run(&SecretString::from(script.to_owned())).await)
    }

    async fn address(&self) -> Result<String, Failure> {
        let server = self.server().await?;
        if server.is_broken() {
            return Err(Failure::plain(Sort::Rejected { field: None }, broken(&server)));
        }
        let address = server.address().map(str::to_owned);
        address.ok_or_else(|| Failure::plain(Sort::Transient { after: None }, "the server has no address yet"))
    }
}

/// systemd ends what takes longer than the operator allows, and says so.
fn unit_of(phase: Phase, limits: &StepLimits) -> Unit {
    let (name, limit) = if phase == Phase::Clean {
        ("imagewright-clean", limits.clean)
    } else if phase.is_of_check() {
        ("imagewright-check", limits.check)
    } else {
        ("imagewright-script", limits.script)
    };
    Unit { name, limit: limit.as_secs() }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn the_limits_of_the_policy_hold_on_the_server_and_the_worker_waits_longer() {
        let minutes = SignedDuration::from_mins;
        let limits = StepLimits { clean: minutes(45), script: minutes(2), check: minutes(3), ..StepLimits::default() };
        for (phase, minutes) in [(Phase::Clean, 45), (Phase::Script, 2), (Phase::Check, 3)] {
            let limit = unit_of(phase, &limits).limit;
            assert_eq!(limit, minutes * 60);
            assert!(phase.limit(&limits).as_secs() > limit);
        }
    }
}
