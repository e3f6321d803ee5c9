//! The `build` and `snapshot` jobs.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use url::Url;

use super::base_image::{BaseImageSpec, Release};
use super::words::{BadWord, CloudName, ImageName, Keep};
use crate::arch::Arch;

/// Boot a builder from a base image, provision it, make an image of it, and send that to other clouds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BuildSpec {
    /// What the image is called; all revisions share the name.
    pub name: ImageName,
    /// What it runs on, and is built on.
    pub arch: Arch,
    /// What it is built from.
    pub base: Base,
    /// Where it is built.
    pub cloud: CloudName,
    /// Where it goes; the cloud where it is built needs no copy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upload_to: Vec<CloudName>,
    /// How many revisions stay on each cloud, 1 to 99.
    #[serde(default)]
    pub keep: Keep,
    /// The flavor of the builder, by name or id; the smallest that fits by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub flavor: Option<String>,
    /// The network of the builder, by name or id; the project's only one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub network: Option<String>,
    /// The version of the runner agent, as in `2.330.0`; `latest` by default, `none` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_version: Option<RunnerVersion>,
    /// How the names of servers, keys and groups begin; `imagewright` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// The proxy of the builder, HOST:PORT; the policy must allow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<HostPort>,
    /// Run on the builder as root, after everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script: Option<Script>,
    /// Run on a server that was booted from the image, before it goes anywhere; must exit with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub check: Option<String>,
    /// Build even if nothing has changed since the newest image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A script that provisions a builder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Script {
    /// An https address that workers may fetch from.
    #[serde(deserialize_with = "super::upload::one_address")]
    #[schemars(with = "String", regex(pattern = "^https://"))]
    pub url: Url,
    /// What must be found there: SHA-256, 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha256Hex>,
    /// Names of secrets of the workers, which the script finds as environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretName>,
}

/// Make an image of a server that is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SnapshotSpec {
    /// What the image is called; all revisions share the name.
    pub name: ImageName,
    /// What it runs on.
    pub arch: Arch,
    /// The server, by name or id.
    #[schemars(length(min = 1, max = 255))]
    pub server: String,
    /// The cloud that has it.
    pub cloud: CloudName,
    /// How many revisions stay, 1 to 99.
    #[serde(default)]
    pub keep: Keep,
    /// Stop the server first, and start it afterwards, so that its disk is at rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
}

/// What an image is built from: an Ubuntu release, by codename or version, or `image:NAME-OR-ID` of the build cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Base {
    /// A release, whose image a `base-image` job has put there.
    Release(Release),
    /// An image by its name or id, as typed.
    Image(String),
}

impl Base {
    /// The name of the image to look for on the build cloud; an id is looked for too.
    pub fn image_name(&self, arch: Arch) -> String {
        match self {
            Base::Release(release) => BaseImageSpec::default_name(*release, arch).to_string(),
            Base::Image(name) => name.clone(),
        }
    }
}

impl FromStr for Base {
    type Err = BadWord;

    fn from_str(word: &str) -> Result<Base, BadWord> {
        if let Some(image) = word.strip_prefix("image:") {
            return if fits(image, 255, |c| !c.is_control()) {
                Ok(Base::Image(image.to_owned()))
            } else {
                Err(BadWord::Name)
            };
        }
        word.parse().map(Base::Release).map_err(|_| BadWord::Base(word.chars().take(40).collect()))
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Base::Release(release) => release.fmt(f),
            Base::Image(name) => write!(f, "image:{name}"),
        }
    }
}

/// A word that follows a pattern.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $pattern:literal, $fits:expr, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// As typed.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadWord;

            fn from_str(word: &str) -> Result<$name, BadWord> {
                let fits: fn(&str) -> bool = $fits;
                if fits(word) { Ok($name(word.to_owned())) } else { Err($error) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text!($name, $pattern);
    };
}

/// What is written as text in a message.
macro_rules! text {
    ($name:ident, $pattern:literal) => {
        impl TryFrom<String> for $name {
            type Error = BadWord;

            fn try_from(word: String) -> Result<$name, BadWord> {
                word.parse()
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> String {
                word.to_string()
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

text!(Base, r"^(image:[^\u0000-\u001f\u007f]{1,255}|focal|jammy|noble|resolute|20\.04|22\.04|24\.04|26\.04)$");
word!(
    /// The version of the runner agent, `latest` or `none`.
    RunnerVersion, r"^(latest|none|[0-9]{1,5}\.[0-9]{1,5}\.[0-9]{1,5})$",
    |word| matches!(word, "latest" | "none") || is_version(word), BadWord::RunnerVersion
);
word!(
    /// How names of cloud objects begin.
    Prefix, "^[A-Za-z0-9][A-Za-z0-9-]{0,62}$",
    |word| fits(word, 63, |c| c.is_ascii_alphanumeric() || c == '-') && !word.starts_with('-'), BadWord::Prefix
);
word!(
    /// A host and a port.
    HostPort, r"^[A-Za-z0-9.-]{1,253}:[0-9]{1,5}$",
    |word| word.rsplit_once(':').is_some_and(|(host, port)| {
        fits(host, 253, |c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-'))
            && port.parse::<u16>().is_ok_and(|port| port > 0) && !port.starts_with('+')
    }), BadWord::HostPort
);
word!(
    /// The name of a secret, and of the environment variable that holds it.
    SecretName, "^[A-Za-z_][A-Za-z0-9_]{0,127}$",
    |word| fits(word, 128, |c| c.is_ascii_alphanumeric() || c == '_') && !word.starts_with(|c: char| c.is_ascii_digit()),
    BadWord::Secret
);
text!(Sha256Hex, "^[0-9a-fA-F]{64}$");

/// A SHA-256 digest in hexadecimal; kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sha256Hex(String);

impl Sha256Hex {
    /// In lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sha256Hex {
    type Err = BadWord;

    fn from_str(word: &str) -> Result<Sha256Hex, BadWord> {
        let fits = word.len() == 64 && word.bytes().all(|c| c.is_ascii_hexdigit());
        if fits { Ok(Sha256Hex(word.to_ascii_lowercase())) } else { Err(BadWord::Digest) }
    }
}

impl fmt::Display for Sha256Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn fits(word: &str, most: usize, plain: fn(char) -> bool) -> bool {
    (1..=most).contains(&word.chars().count()) && word.chars().all(plain)
}

fn is_version(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| fits(part, 5, |c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_a_release_or_an_image() {
        assert_eq!("24.04".parse::<Base>().unwrap(), Base::Release(Release::Noble));
        assert_eq!("image:My Base".parse::<Base>().unwrap(), Base::Image("My Base".to_owned()));
        assert!("bionic".parse::<Base>().unwrap_err().to_string().contains("noble"));
        assert!("image:".parse::<Base>().is_err());
    }

    #[test]
    fn words_have_rules() {
        assert!("2.330.0".parse::<RunnerVersion>().is_ok() && "latest".parse::<RunnerVersion>().is_ok());
        assert!("2.330".parse::<RunnerVersion>().is_err() && "v2.330.0".parse::<RunnerVersion>().is_err());
        assert!("proxy.example.org:3128".parse::<HostPort>().is_ok());
        for wrong in ["proxy", "proxy:0", "proxy:70000", "http://proxy:1", "proxy:+1", ":1"] {
            assert!(wrong.parse::<HostPort>().is_err(), "{wrong}");
        }
        assert!("A_1".parse::<SecretName>().is_ok() && "1A".parse::<SecretName>().is_err());
        assert!("-x".parse::<Prefix>().is_err() && "runner-a".parse::<Prefix>().is_ok());
    }
}
