//! What an image is made of beside the content: the choices of one build and of the site.

use imagewright_common::arch::Arch;
use imagewright_common::job::Release;
use url::Url;

use super::files::{Content, List};
use super::{ContentError, Runner};
use crate::guest::quoted;

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    /// What it runs on.
    pub(crate) arch: Arch,
    /// The release it starts from; none where the base is an image of which only the name is known.
    pub(crate) release: Option<Release>,
    /// What the image is called.
    pub(crate) name: String,
    /// The runner agent, as it was resolved once for the build; none for none.
    pub(crate) runner: Option<Runner>,
    /// The proxy of everything that the builder downloads, HOST:PORT.
    pub(crate) proxy: Option<String>,
    /// What takes the place of Ubuntu's package servers.
    pub(crate) apt_mirror: Option<Url>,
    /// A Snap Store Proxy.
    pub(crate) snap_proxy: Option<Url>,
}

impl Recipe {
    /// The variables that the scripts find, as lines of a shell.
    ///
    /// # Errors
    /// A choice that cannot be written down, or a wrong line of a list.
    pub(super) fn environment(&self, content: &Content) -> Result<String, ContentError> {
        let lines = |list| content.lines(list, self.arch, self.release);
        let words = |list| lines(list).map(|found| found.join(" "));
        let of_runner = |part: fn(&Runner) -> &str| self.runner.as_ref().map(part).unwrap_or_default().to_owned();
        let variables = [
            ("ARCH", self.arch.as_str().to_owned()),
            ("BASE", self.release.map(Release::codename).unwrap_or_default().to_owned()),
            ("IMAGE_NAME", one_line("name", &self.name)?),
            ("RUNNER_VERSION", of_runner(|runner| &runner.version)),
            ("RUNNER_URL", of_runner(|runner| runner.url.as_str())),
            ("RUNNER_SHA256", of_runner(|runner| &runner.sha256)),
            ("PROXY", one_line("proxy", self.proxy.as_deref().unwrap_or_default())?),
            ("APT_MIRROR", address("apt mirror", self.apt_mirror.as_ref())?),
            ("SNAP_PROXY", address("snap proxy", self.snap_proxy.as_ref())?),
            ("PACKAGES", words(List::Packages)?),
            ("SNAPS", words(List::Snaps)?),
            ("USERS", words(List::Users)?),
            ("DISABLED_SERVICES", words(List::Services)?),
            ("SYSCTL", lines(List::Sysctl)?.join("\n")),
        ];
        Ok(variables.map(|(name, value)| format!("{name}={}\n", quoted(&value))).concat())
    }
}

fn one_line(field: &'static str, text: &str) -> Result<String, ContentError> {
    if text.chars().any(char::is_control) {
        return Err(ContentError::Choice { field, reason: "holds a control character".to_owned() });
    }
    Ok(text.to_owned())
}

/// An address that is written into lists of packages: no secret in it, and nothing that `sed` reads as its own.
fn address(field: &'static str, url: Option<&Url>) -> Result<String, ContentError> {
    let Some(url) = url else { return Ok(String::new()) };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/:.-_~%[]".contains(c);
    let is_web = matches!(url.scheme(), "http" | "https");
    if is_web && url.username().is_empty() && url.password().is_none() && url.as_str().chars().all(is_plain) {
        return Ok(url.to_string());
    }
    let reason = "write http:// or https://, a host and a path, without user, password, query or fragment".to_owned();
    Err(ContentError::Choice { field, reason })
}
