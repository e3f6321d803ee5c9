//! The first step: everything that decides what the image becomes is found out once, and compared with what is there.

use std::time::Duration;

use imagewright_common::job::{Base, Script};
use imagewright_common::openstack::{Flavor, Image, ImageQuery, ImageStatus, Network};
use imagewright_common::source::url::Text;
use imagewright_common::store::{StoreError, revision, stamp};
use secrecy::SecretString;
use serde_json::json;
use url::Url;

use super::state::{Phase, Plan};
use super::{Build, Failure, Sort};
use crate::builders::Keys;
use crate::content::{self, Login, Recipe, Runner, UserData, sha256};
use crate::guest::USER;
use crate::steps::failure::cloud;
use crate::verdict::Ended;

/// The least that a builder needs, where no flavor is named.
const VCPUS_MIN: u32 = 2;
const RAM_MIN: u64 = 2048;
const DISK_MIN: u64 = 20;

/// The longest script, in bytes.
pub(super) const SCRIPT_MAX: usize = 1024 * 1024;

/// The longest answer about a release of the runner agent, in bytes.
const RELEASE_MAX: usize = 4 * 1024 * 1024;

/// Where an image says what it was made of.
pub(super) const INPUTS: &str = "imagewright_inputs";

impl Build<'_> {
    pub(super) async fn plan(&mut self) -> Result<Ended, Failure> {
        let base = self.base().await?;
        let base_digest = base.os_hash_value.clone().unwrap_or_else(|| base.id.clone());
        let script = match &self.spec.script {
            Some(script) => Some(sha256(&self.script(script).await?)),
            None => None,
        };
        let runner = self.runner().await?;
        let template = self.user_data(runner.clone())?.template_digest;
        let inputs = json!({
            "arch": self.spec.arch, "base": base_digest, "script": script,
            "template": template, "check": self.spec.check, "proxy": self.spec.proxy,
        });
        let inputs = sha256(inputs.to_string().as_bytes());
        if let Some(ended) = self.unchanged(&inputs).await? {
            return Ok(ended);
        }
        let (flavor, network) = (self.flavor().await?, self.network().await?);
        let warns = self.spec.script.as_ref().is_some_and(|script| script.sha256.is_none());
        self.state.plan = Some(Plan {
            base: base.id,
            base_digest,
            flavor,
            network,
            script: script.clone(),
            runner,
            template,
            inputs,
        });
        self.state.enter(Phase::Access);
        let why = match script.filter(|_| warns) {
            Some(digest) => format!("the script has no sha256 of its own; what was fetched has {digest}"),
            None => "access is next".to_owned(),
        };
        self.next(Duration::ZERO, why)
    }

    /// The script, of the digest that is asked for, if it may have the secrets that it is to get.
    pub(super) async fn script(&self, script: &Script) -> Result<Vec<u8>, Failure> {
        let text = self.tools.sources.text(&script.url, "spec.script.url", SCRIPT_MAX).await;
        let Text { bytes, hops } = text.map_err(|error| Failure::from(StoreError::from(error)))?;
        let known = self.state.plan.as_ref().and_then(|plan| plan.script.as_deref());
        let wanted = known.or(script.sha256.as_ref().map(|digest| digest.as_str()));
        let found = sha256(&bytes);
        if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
            return Err(rejected("spec.script.sha256", format!("what is there has {found}, not {wanted}")));
        }
        if !bytes.starts_with(b"#!") {
            return Err(rejected("spec.script.url", "what is there does not begin with #! and an interpreter"));
        }
        self.grants(script, &found, &hops)?;
        Ok(bytes)
    }

    /// The runner agent, resolved once: what is latest may change while an image is built.
    async fn runner(&self) -> Result<Option<Runner>, Failure> {
        let wanted = self.spec.runner_version.as_ref().map_or("latest", |version| version.as_str());
        let path = match wanted {
            "none" => return Ok(None),
            "latest" => vec!["latest".to_owned()],
            version => vec!["tags".to_owned(), format!("v{version}")],
        };
        let places = &self.tools.builders.places;
        let mut url = places.releases(self.spec.arch).map_err(|error| rejected("spec.runner_version", error))?;
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let field = "spec.runner_version";
        let fetch = async { Ok(self.tools.sources.text(&url, field, RELEASE_MAX).await?.bytes) };
        let answer = self.tools.builders.releases.ask(&url, fetch).await;
        let answer = answer.map_err(|error| Failure::from(StoreError::from(error)))?;
        let runner = content::choose(&answer, self.spec.arch, places.runner_mirror.as_ref());
        runner.map(Some).map_err(|error| rejected(field, error))
    }

    /// What the builder is told; the same each time, but for what the site has changed meanwhile.
    pub(super) fn user_data(&self, runner: Option<Runner>) -> Result<UserData, Failure> {
        let release = match &self.spec.base {
            Base::Release(release) => Some(*release),
            Base::Image(_) => None,
        };
        let (places, keys) = (&self.tools.builders.places, self.keys()?);
        let recipe = Recipe {
            arch: self.spec.arch,
            release,
            name: self.spec.name.to_string(),
            runner,
            proxy: self.spec.proxy.as_ref().map(ToString::to_string),
            apt_mirror: places.apt_mirror.clone(),
            snap_proxy: places.snap_proxy.clone(),
        };
        let user_data = content::render(&recipe, &self.tools.builders.content, &login(&keys));
        user_data.map_err(|error| rejected("spec.kind", format!("what this worker puts into images: {error}")))
    }

    /// The same, if this worker would render what the plan says: else the image would be stamped with what it is not.
    pub(super) fn planned_user_data(&self, plan: &Plan) -> Result<SecretString, Failure> {
        let user_data = self.user_data(plan.runner.clone())?;
        if user_data.template_digest == plan.template {
            return Ok(user_data.base64);
        }
        let reason = "this worker would put other content into the image than the one that planned the build: give all \
                      workers the same version, --content-dir and mirrors, and ask again";
        Err(rejected("spec.kind", reason))
    }

    /// Every secret that is asked for may be given to a script of this digest that came by these addresses, and is there.
    fn grants(&self, script: &Script, digest: &str, hops: &[Url]) -> Result<(), Failure> {
        let policy = self.tools.policy();
        for name in &script.secrets {
            if !policy.secrets.get(name).is_some_and(|grant| grant.fits(hops, digest)) {
                let hosts: Vec<&str> = hops.iter().filter_map(Url::host_str).collect();
                let reason = format!(
                    "the policy does not give {name} to this script, which came by {} (secrets.{name}: sha256 or hosts)",
                    hosts.join(", ")
                );
                return Err(rejected("spec.script.secrets", reason));
            }
            self.tools
                .builders
                .secret(name)
                .map_err(|error| rejected("spec.script.secrets", format!("{name}: {error:#}")))?;
        }
        Ok(())
    }

    /// The base, by the name of its release or as typed; by its id too.
    async fn base(&self) -> Result<Image, Failure> {
        let name = self.spec.base.image_name(self.spec.arch);
        let query = ImageQuery { name: Some(name.clone()), status: Some(ImageStatus::Active), ..ImageQuery::default() };
        let mut images = self.glance.list(&query).await.map_err(cloud)?.value;
        images.sort_by_key(revision::order);
        if let Some(newest) = images.pop() {
            return Ok(newest);
        }
        if let Ok(seen) = self.glance.get(&name).await
            && seen.value.status == ImageStatus::Active
        {
            return Ok(seen.value);
        }
        let help = match &self.spec.base {
            Base::Release(release) => {
                format!(
                    "; make it with `imagewright base-image --base {release} --arch {} --cloud {}`",
                    self.spec.arch, self.spec.cloud
                )
            }
            Base::Image(_) => String::new(),
        };
        Err(rejected("spec.base", format!("{} has no active image {name:?}{help}", self.spec.cloud)))
    }

    async fn flavor(&self) -> Result<String, Failure> {
        let flavors = self.nova.flavors().await.map_err(cloud)?;
        choose_flavor(flavors, self.spec.flavor.as_deref()).map_err(|reason| rejected("spec.flavor", reason))
    }

    async fn network(&self) -> Result<String, Failure> {
        let project = self.glance.session().project_id().await.map_err(cloud)?;
        let networks = self.neutron.networks().await.map_err(cloud)?;
        choose_network(networks, self.spec.network.as_deref(), &project)
            .map_err(|reason| rejected("spec.network", reason))
    }

    /// Nothing is built when the newest image was made of the same. It still goes where it is missing.
    async fn unchanged(&self, inputs: &str) -> Result<Option<Ended>, Failure> {
        if self.spec.force {
            return Ok(None);
        }
        let owned = revision::owned(&self.glance, &self.spec.name).await.map_err(cloud)?.value;
        let Some(newest) = revision::newest_verified(&owned, self.spec.arch) else { return Ok(None) };
        if stamp::get(newest, INPUTS) != Some(inputs) {
            return Ok(None);
        }
        let mut missing = Vec::new();
        for cloud_name in self.destinations() {
            let glance = self.tools.pool.glance(cloud_name).await?;
            let there = revision::owned(&glance, &self.spec.name).await.map_err(cloud)?.value;
            let copy = revision::newest_verified(&there, self.spec.arch);
            if copy.and_then(|copy| copy.os_hash_value.as_ref()) != newest.os_hash_value.as_ref() {
                missing.push(cloud_name.clone());
            }
        }
        let children = self.copies(&newest.id, &missing);
        let ids: Vec<_> = children.iter().map(|child| child.id).collect();
        let result = json!({
            "image_id": newest.id, "unchanged": true, "children": ids,
            "why": "base, content, script and versions are those of the newest image; --force builds all the same",
        });
        Ok(Some(Ended::Succeeded { result, children }))
    }
}

/// Who logs in, and by what the server is known.
pub(super) fn login(keys: &Keys) -> Login<'_> {
    Login {
        user: USER,
        public_key: &keys.user.public,
        host_private: &keys.host.private,
        host_public: &keys.host.public,
    }
}

/// The flavor of this name or id, else the smallest that is large enough.
fn choose_flavor(mut flavors: Vec<Flavor>, wanted: Option<&str>) -> Result<String, String> {
    flavors.retain(|flavor| !flavor.disabled);
    if let Some(wanted) = wanted {
        let found = flavors.iter().find(|flavor| flavor.name == wanted || flavor.id == wanted);
        let names = || flavors.iter().map(|flavor| flavor.name.as_str()).collect::<Vec<_>>().join(", ");
        return found
            .map(|flavor| flavor.id.clone())
            .ok_or_else(|| format!("no flavor {wanted:?}; there are: {}", names()));
    }
    flavors.retain(|flavor| flavor.vcpus >= VCPUS_MIN && flavor.ram >= RAM_MIN && flavor.disk >= DISK_MIN);
    flavors.sort_by(|a, b| (a.vcpus, a.ram, a.disk, &a.id).cmp(&(b.vcpus, b.ram, b.disk, &b.id)));
    flavors.first().map(|flavor| flavor.id.clone()).ok_or_else(|| {
        format!("no flavor has {VCPUS_MIN} processors, {RAM_MIN} MiB of memory and a disk of {DISK_MIN} GiB; name one")
    })
}

/// The network of this name or id, else the project's only one, else the only one there is.
fn choose_network(networks: Vec<Network>, wanted: Option<&str>, project: &str) -> Result<String, String> {
    if let Some(wanted) = wanted {
        let mut found = networks.iter().filter(|network| network.name == wanted || network.id == wanted);
        return match (found.next(), found.next()) {
            (Some(network), None) => Ok(network.id.clone()),
            (Some(_), Some(_)) => Err(format!("several networks are called {wanted:?}: give the id of one")),
            (None, _) => Err(format!("no network {wanted:?}; there are: {}", listed(&networks))),
        };
    }
    let usable = || networks.iter().filter(|network| !network.external && !network.subnets.is_empty());
    let own: Vec<&Network> = usable().filter(|network| network.project_id == project).collect();
    let all: Vec<&Network> = usable().collect();
    match (own.as_slice(), all.as_slice()) {
        ([one], _) | (_, [one]) => Ok(one.id.clone()),
        (_, []) => Err("the project has no network with a subnet".to_owned()),
        _ => Err(format!("there are several networks; name one of: {}", listed(&networks))),
    }
}

fn listed(networks: &[Network]) -> String {
    networks.iter().map(|network| network.name.as_str()).collect::<Vec<_>>().join(", ")
}

pub(super) fn rejected(field: &str, reason: impl std::fmt::Display) -> Failure {
    Failure::plain(Sort::Rejected { field: Some(field.to_owned()) }, format!("{field}: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavor(name: &str, vcpus: u32, ram: u64, disk: u64) -> Flavor {
        Flavor { id: format!("id-{name}"), name: name.to_owned(), vcpus, ram, disk, disabled: false }
    }

    fn network(name: &str, project: &str, external: bool) -> Network {
        let (id, subnets) = (format!("id-{name}"), vec!["s".to_owned()]);
        Network { id, name: name.to_owned(), project_id: project.to_owned(), external, subnets }
    }

    #[test]
    fn names_are_taken_exactly_as_typed() {
        let flavors = vec![flavor("m1.large", 4, 8192, 80), flavor("M1.Large", 8, 16384, 80)];
        assert_eq!(choose_flavor(flavors.clone(), Some("M1.Large")).unwrap(), "id-M1.Large");
        assert!(choose_flavor(flavors, Some("M1.LARGE")).unwrap_err().contains("m1.large, M1.Large"));
        let networks = vec![network("Net", "p", false), network("net", "p", false)];
        assert_eq!(choose_network(networks, Some("Net"), "p").unwrap(), "id-Net");
    }

    #[test]
    fn without_a_name_the_smallest_that_fits() {
        let flavors = vec![flavor("big", 8, 8192, 80), flavor("tiny", 1, 512, 5), flavor("right", 2, 4096, 20)];
        assert_eq!(choose_flavor(flavors, None).unwrap(), "id-right");
        assert!(choose_flavor(vec![flavor("tiny", 1, 512, 5)], None).unwrap_err().contains("name one"));
    }

    #[test]
    fn without_a_name_the_only_network() {
        let own = network("own", "p", false);
        let shared = network("shared", "q", false);
        let outside = network("outside", "q", true);
        assert_eq!(choose_network(vec![shared.clone(), own, outside.clone()], None, "p").unwrap(), "id-own");
        assert_eq!(choose_network(vec![shared.clone(), outside], None, "p").unwrap(), "id-shared");
        let both = vec![shared, network("other", "q", false)];
        assert!(choose_network(both, None, "p").unwrap_err().contains("shared, other"));
    }
}
