//! What a message may ask of a worker beyond its own options: a YAML file, all of whose keys have a default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use jiff::SignedDuration;
use serde::Deserialize;
use url::Url;

use crate::job::{SecretName, Sha256Hex, Visibility};
use crate::yaml;

mod steps;

pub use steps::StepLimits;

/// The commented default, which is also the reference.
pub const DEFAULT: &str = include_str!("policy.yaml");

/// What a message may ask.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Clouds that jobs may act on.
    pub clouds: Globs,
    /// Image names that jobs may use.
    pub names: Globs,
    /// Names whose unstamped images prune may count and delete.
    pub adopt: Globs,
    /// Visibilities that an image may be given.
    pub visibilities: Vec<Visibility>,
    /// Clouds that images may be copied from.
    pub copy_from: Globs,
    /// How long a leftover of ours lies untouched before it is removed.
    pub leftover_grace: Duration,
    /// Servers that jobs may make images of, by name or id.
    pub servers: Globs,
    /// Proxies that jobs may give a builder, as `HOST:PORT`.
    pub proxies: Globs,
    /// Where workers come from when they log in at a builder: CIDR blocks.
    pub ssh_from: Vec<String>,
    /// The port of SSH on builders.
    pub ssh_port: u16,
    /// How long the steps of a build may last.
    pub step_limits: StepLimits,
    /// Which scripts may have which secrets.
    pub secrets: BTreeMap<SecretName, Grant>,
}

/// Which scripts may have a secret: by their digest or by the host that they come from.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// SHA-256 digests.
    pub sha256: Vec<Sha256Hex>,
    /// Hosts.
    pub hosts: Vec<String>,
}

impl Grant {
    /// Whether a script of this digest may have the secret, or one that came by these addresses: whoever redirects to
    /// another host lets that one write the script, so each must be granted.
    pub fn fits(&self, hops: &[Url], sha256: &str) -> bool {
        let is_granted = |host: &str| self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host));
        self.sha256.iter().any(|known| known.as_str() == sha256)
            || (!hops.is_empty() && hops.iter().all(|hop| hop.host_str().is_some_and(is_granted)))
    }
}

/// Shell patterns of which one must fit.
#[derive(Clone, Debug, Default)]
pub struct Globs {
    set: GlobSet,
}

/// A policy file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The file cannot be read.
    #[error("cannot read the policy {path}: {source}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no policy.
    #[error("policy {path}: {reason}")]
    Content {
        /// Which file.
        path: String,
        /// What is wrong and where.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Text {
    clouds: Vec<String>,
    names: Vec<String>,
    adopt: Vec<String>,
    visibilities: Vec<Visibility>,
    copy_from: Vec<String>,
    leftover_grace: String,
    servers: Vec<String>,
    proxies: Vec<String>,
    ssh_from: Vec<String>,
    ssh_port: u16,
    step_limits: StepLimits,
    secrets: BTreeMap<SecretName, Grant>,
}

impl Default for Text {
    fn default() -> Self {
        let any = || vec!["*".to_owned()];
        Text {
            clouds: any(),
            names: any(),
            adopt: Vec::new(),
            visibilities: vec![Visibility::Private, Visibility::Shared],
            copy_from: any(),
            leftover_grace: "24h".to_owned(),
            servers: any(),
            proxies: Vec::new(),
            ssh_from: Vec::new(),
            ssh_port: 22,
            step_limits: StepLimits::default(),
            secrets: BTreeMap::new(),
        }
    }
}

impl Policy {
    /// The policy in `path`, or the default.
    ///
    /// # Errors
    /// [`PolicyError`] names the file and what is wrong with it.
    pub fn load(path: Option<&Path>) -> Result<Policy, PolicyError> {
        let Some(path) = path else { return Policy::parse("default", DEFAULT) };
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| PolicyError::Read { path: shown.clone(), source })?;
        Policy::parse(&shown, &text)
    }

    fn parse(path: &str, text: &str) -> Result<Policy, PolicyError> {
        let wrong = |reason: String| PolicyError::Content { path: path.to_owned(), reason };
        let text: Text = yaml::parse(text).map_err(|error| wrong(error.to_string()))?;
        let globs =
            |field: &str, words: &[String]| Globs::new(words).map_err(|error| wrong(format!("{field}: {error}")));
        let grace: SignedDuration = text
            .leftover_grace
            .parse()
            .map_err(|error| wrong(format!("leftover_grace: {error}; write for example 24h")))?;
        if let Some(block) = text.ssh_from.iter().find(|block| !is_cidr(block)) {
            return Err(wrong(format!("ssh_from: {block:?} is no CIDR block; write for example 10.0.8.0/24")));
        }
        if let Some(step) = text.step_limits.too_short() {
            return Err(wrong(format!("step_limits.{step}: must be longer than nothing; write for example 20m")));
        }
        Ok(Policy {
            step_limits: text.step_limits,
            servers: globs("servers", &text.servers)?,
            proxies: globs("proxies", &text.proxies)?,
            ssh_from: text.ssh_from,
            ssh_port: text.ssh_port,
            secrets: text.secrets,
            clouds: globs("clouds", &text.clouds)?,
            names: globs("names", &text.names)?,
            adopt: globs("adopt", &text.adopt)?,
            copy_from: globs("copy_from", &text.copy_from)?,
            visibilities: text.visibilities,
            leftover_grace: Duration::try_from(grace)
                .map_err(|_| wrong("leftover_grace: may not be negative".to_owned()))?,
        })
    }
}

fn is_cidr(block: &str) -> bool {
    let Some((address, bits)) = block.split_once('/') else { return false };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

impl Globs {
    /// The patterns in `words`.
    ///
    /// # Errors
    /// A word that is no pattern.
    pub fn new(words: &[String]) -> Result<Globs, globset::Error> {
        let mut builder = GlobSetBuilder::new();
        for word in words {
            builder.add(Glob::new(word)?);
        }
        Ok(Globs { set: builder.build()? })
    }

    /// Whether one of them fits.
    pub fn fits(&self, word: &str) -> bool {
        self.set.is_match(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_what_the_defaults_are() {
        let (shipped, default) = (Policy::load(None).unwrap(), Policy::parse("empty", "{}").unwrap());
        assert_eq!(format!("{shipped:?}"), format!("{default:?}"));
        assert!(!shipped.adopt.fits("anything") && shipped.names.fits("a/b c"));
    }

    #[test]
    fn a_wrong_limit_is_named_with_its_step() {
        let policy = Policy::parse("p.yaml", "step_limits: {script: 90m}").unwrap();
        assert_eq!(policy.step_limits, StepLimits { script: SignedDuration::from_mins(90), ..StepLimits::default() });
        for (text, word) in
            [("{script: 0s}", "step_limits.script"), ("{wait-ssh: soon}", "step_limits"), ("{boot: 1m}", "boot")]
        {
            let error = Policy::parse("p.yaml", &format!("step_limits: {text}")).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_secret_of_a_host_does_not_follow_a_redirect_to_another() {
        let policy = Policy::parse("p.yaml", "secrets: {T: {hosts: [a.example, B.example], sha256: []}}").unwrap();
        let grant = policy.secrets.values().next().unwrap();
        let fits = |hops: &[&str]| grant.fits(&hops.iter().map(|hop| hop.parse().unwrap()).collect::<Vec<_>>(), "0");
        assert!(fits(&["https://a.example/s"]) && fits(&["https://a.example/s", "https://b.example/s"]));
        assert!(!fits(&["https://a.example/s", "https://c.example/s"]));
        assert!(!fits(&["https://a.example/s", "https://c.example/s", "https://a.example/s"]));
        assert!(!fits(&[]));
        let digest = "ab".repeat(32);
        let bound = Grant { sha256: vec![digest.parse().unwrap()], hosts: Vec::new() };
        assert!(bound.fits(&["https://c.example/s".parse().unwrap()], &digest) && !bound.fits(&[], "0"));
    }

    #[test]
    fn a_wrong_key_is_named() {
        let error = Policy::parse("p.yaml", "nmaes: ['*']").unwrap_err().to_string();
        assert!(error.contains("p.yaml") && error.contains("nmaes"), "{error}");
    }
}
