//! The words of a message that have rules of their own, checked once, where they are read.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The name of an image in Glance: 1 to 255 characters (the limit of Glance's schema), no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageName(String);

/// The name of a cloud in clouds.yaml: 1 to 255 characters, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CloudName(String);

/// How many revisions are kept: 1 to 99.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Keep(u8);

/// A word of a message that breaks its rule.
#[derive(Debug, thiserror::Error)]
pub enum BadWord {
    /// An image or cloud name out of its bounds.
    #[error("a name has 1 to 255 characters, none of them a control character")]
    Name,
    /// An image name that Glance would read as a list filter.
    #[error("an image name may not begin with \"in:\", which Glance reads as a list of names")]
    Filter,
    /// A base that is none.
    #[error("unknown base {0:?}: use focal, jammy, noble, resolute, their versions (24.04), or image:NAME-OR-ID")]
    Base(String),
    /// A version of the runner agent that is none.
    #[error("runner_version is three numbers, as in 2.330.0, or latest, or none")]
    RunnerVersion,
    /// A prefix of names that clouds would not take.
    #[error("prefix has 1 to 63 letters, digits and hyphens, and does not begin with a hyphen")]
    Prefix,
    /// A proxy that is no host and port.
    #[error("proxy is HOST:PORT, as in proxy.example.org:3128")]
    HostPort,
    /// A name that no environment variable can have.
    #[error("the name of a secret has letters, digits and underscores, and does not begin with a digit")]
    Secret,
    /// A digest that is none.
    #[error("sha256 is 64 hexadecimal digits")]
    Digest,
    /// A count of revisions out of its bounds.
    #[error("keep is 1 to 99, not {0}: at least the newest revision always stays")]
    Keep(u64),
}

fn check(word: String) -> Result<String, BadWord> {
    let length = word.chars().count();
    if (1..=255).contains(&length) && !word.chars().any(char::is_control) { Ok(word) } else { Err(BadWord::Name) }
}

impl TryFrom<String> for ImageName {
    type Error = BadWord;

    fn try_from(word: String) -> Result<Self, BadWord> {
        if word.starts_with("in:") { Err(BadWord::Filter) } else { check(word).map(ImageName) }
    }
}

impl ImageName {
    /// A name that this program made, of words that have no control character.
    pub(super) fn plain(word: String) -> ImageName {
        ImageName(word)
    }
}

impl TryFrom<String> for CloudName {
    type Error = BadWord;

    fn try_from(word: String) -> Result<Self, BadWord> {
        check(word).map(CloudName)
    }
}

impl TryFrom<u64> for Keep {
    type Error = BadWord;

    fn try_from(count: u64) -> Result<Self, BadWord> {
        u8::try_from(count).ok().filter(|count| (1..=99).contains(count)).map(Keep).ok_or(BadWord::Keep(count))
    }
}

impl Keep {
    /// The count.
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

impl Default for Keep {
    fn default() -> Self {
        Keep(5)
    }
}

impl From<Keep> for u64 {
    fn from(keep: Keep) -> u64 {
        u64::from(keep.0)
    }
}

impl std::str::FromStr for Keep {
    type Err = BadWord;

    fn from_str(word: &str) -> Result<Self, BadWord> {
        word.parse::<u64>().map_err(|_| BadWord::Keep(0)).and_then(Keep::try_from)
    }
}

macro_rules! name {
    ($type:ident, $pattern:literal, $description:literal) => {
        impl $type {
            /// The name itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = BadWord;

            fn from_str(word: &str) -> Result<Self, BadWord> {
                $type::try_from(word.to_owned())
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 255,
                    "pattern": $pattern,
                    "description": $description
                })
            }
        }
    };
}

// No control character; and Glance would read `in:` as a list of names.
name!(ImageName, r"^(?!in:)[^\u0000-\u001f\u007f-\u009f]*$", "Name of the image in Glance.");
name!(CloudName, r"^[^\u0000-\u001f\u007f-\u009f]*$", "Name of a cloud in the workers' clouds.yaml.");

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl JsonSchema for Keep {
    fn schema_name() -> Cow<'static, str> {
        "Keep".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": 99, "description": "How many revisions stay." })
    }
}
