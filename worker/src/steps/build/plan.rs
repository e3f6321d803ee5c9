//! The first step: everything that decides what the image becomes is found out once, and compared with what is there.

use imagewright_common::event::What;
use imagewright_common::job::{Base, Script};
use imagewright_common::openstack::{CloudError, CloudErrorKind, Image, ImageQuery, ImageStatus};
use imagewright_common::source::url::Text;
use imagewright_common::store::StoreError;
use secrecy::SecretString;
use serde_json::json;
use url::Url;

use super::choose::{choose_base, choose_flavor, choose_network};
use super::state::{Phase, Plan};
use super::{Build, Failure, Sort};
use crate::builders::Keys;
use crate::content::{self, Login, Recipe, Runner, UserData, sha256};
use crate::guest::USER;
use crate::steps::failure::cloud;
use crate::verdict::Ended;

/// The longest script, in bytes.
pub(super) const SCRIPT_MAX: usize = 1024 * 1024;

/// The longest answer about a release of the runner agent, in bytes.
const RELEASE_MAX: usize = 4 * 1024 * 1024;

impl Build<'_> {
    pub(super) async fn plan(&mut self) -> Result<Ended, Failure> {
        if self.state.image.is_some() {
            return self.spread(&self.image().await?).await;
        }
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
        if let Some(image) = self.unchanged(&inputs).await? {
            return self.spread(&image).await;
        }
        let (flavor, network) = (self.flavor().await?, self.network().await?);
        self.warn_of_any_script(script.as_deref()).await?;
        self.state.plan = Some(Plan { base: base.id, base_digest, flavor, network, script, runner, template, inputs });
        self.enter(Phase::Access)
    }

    /// A script that was asked for without its digest is whatever its host gave out.
    async fn warn_of_any_script(&self, digest: Option<&str>) -> Result<(), Failure> {
        let (Some(digest), Some(Script { sha256: None, .. })) = (digest, &self.spec.script) else { return Ok(()) };
        let message = format!("the script has no sha256 of its own; what was fetched has {digest}");
        self.tools.say(self.message, What::Warning { message }).await
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
        if images.is_empty() {
            images = match self.glance.get(&name).await {
                Ok(seen) if seen.value.status == ImageStatus::Active => vec![seen.value],
                Err(error) if !is_no_such_image(&error) => return Err(cloud(error)),
                Ok(_) | Err(_) => Vec::new(),
            };
        }
        let is_there = !images.is_empty();
        let project = self.glance.session().project_id().await.map_err(cloud)?;
        let preferred = match &self.spec.base {
            Base::Release(_) => Some(project.as_str()),
            Base::Image(_) => None,
        };
        if let Some(image) = choose_base(images, preferred) {
            return Ok(image);
        }
        if is_there {
            let reason = format!("spec.base: the image {name:?} on {} is not verified yet", self.spec.cloud);
            return Err(Failure::plain(Sort::Transient { after: None }, reason));
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
}

/// Whether Glance knows of none, or none that could have such an id.
fn is_no_such_image(error: &CloudError) -> bool {
    matches!(error.kind, CloudErrorKind::NotFound | CloudErrorKind::Forbidden | CloudErrorKind::Rejected)
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

pub(super) fn rejected(field: &str, reason: impl std::fmt::Display) -> Failure {
    Failure::plain(Sort::Rejected { field: Some(field.to_owned()) }, format!("{field}: {reason}"))
}
