//! The `base-image` job.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use super::upload::{BadSource, DiskFormat, Source, UploadSpec, Visibility};
use super::words::{CloudName, ImageName, Keep};
use crate::arch::Arch;

/// An Ubuntu release that images are built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Release {
    /// 20.04.
    Focal,
    /// 22.04.
    Jammy,
    /// 24.04.
    Noble,
    /// 26.04.
    Resolute,
}

/// A word that names no release we know.
#[derive(Debug, thiserror::Error)]
#[error("unknown release {given:?}: use focal, jammy, noble or resolute, or 20.04, 22.04, 24.04 or 26.04")]
pub struct UnknownRelease {
    given: String,
}

/// Put Ubuntu's cloud image on a cloud as the base of builds, if the newest there is another one; then prune.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "LooseBaseImage", into = "LooseBaseImage")]
#[schemars(with = "LooseBaseImage")]
pub struct BaseImageSpec {
    /// What it runs on.
    pub arch: Arch,
    /// The release.
    pub base: Release,
    /// Where it goes.
    pub cloud: CloudName,
    /// How many revisions stay on that cloud.
    pub keep: Keep,
    /// What the image is called; [`BaseImageSpec::default_name`] where the message does not say.
    pub name: ImageName,
    /// Where it is fetched from.
    pub origin: Origin,
}

/// Where a base image is fetched from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// A mirror of cloud-images.ubuntu.com, whose digests are signed; the original where none is named.
    Mirror(Option<Url>),
    /// One https address, whose digest the message says.
    Download {
        /// The address.
        url: Url,
        /// 64 lower-case hexadecimal digits.
        sha256: String,
    },
}

/// How the message spells it.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BaseImageSpec")]
struct LooseBaseImage {
    /// What it runs on; armhf means Ubuntu's arm64 image.
    arch: Arch,
    /// The Ubuntu release, by codename or version.
    base: Release,
    /// Where it goes.
    cloud: CloudName,
    /// How many revisions stay on that cloud, 1 to 99.
    #[serde(default)]
    keep: Keep,
    /// What the image is called; `imagewright-base-<codename>-<arch>` by default, which is where builds look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<ImageName>,
    /// An https address that holds what cloud-images.ubuntu.com does, signatures too; the original by default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address")]
    #[schemars(with = "Option<String>", regex(pattern = "^https://"))]
    mirror: Option<Url>,
    /// One image file, instead of a mirror; the digest stands for the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<LooseDownload>,
}

/// An image file by https.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BaseImageSource")]
struct LooseDownload {
    /// Begins with https.
    #[serde(deserialize_with = "one_address")]
    #[schemars(with = "String", regex(pattern = "^https://"))]
    url: Url,
    /// SHA-256 in hexadecimal.
    #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
    sha256: String,
}

/// A base image whose origin is not told right.
#[derive(Debug, thiserror::Error)]
enum BadOrigin {
    /// Two origins.
    #[error("source and mirror are both given: source is one file, mirror a tree of signed ones")]
    Both,
    /// The digest is not 64 hexadecimal digits.
    #[error("source: {0}")]
    Source(#[from] BadSource),
}

/// An address may hold a signature, so the error does not quote it.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(|text| parse_address(&text)).transpose()
}

fn one_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    parse_address(&String::deserialize(deserializer)?)
}

fn parse_address<E: Error>(text: &str) -> Result<Url, E> {
    Url::parse(text).map_err(|error| E::custom(format!("no address: {error}")))
}

impl TryFrom<LooseBaseImage> for BaseImageSpec {
    type Error = BadOrigin;

    fn try_from(loose: LooseBaseImage) -> Result<Self, BadOrigin> {
        let LooseBaseImage { arch, base, cloud, keep, name, mirror, source } = loose;
        let origin = match (mirror, source) {
            (Some(_), Some(_)) => return Err(BadOrigin::Both),
            (mirror, None) => Origin::Mirror(mirror),
            (None, Some(LooseDownload { url, sha256 })) => match Source::url(url, &sha256)? {
                Source::Url { url, sha256 } => Origin::Download { url, sha256 },
                Source::File(_) | Source::Image(_) => return Err(BadSource::NotOne.into()),
            },
        };
        let name = name.unwrap_or_else(|| BaseImageSpec::default_name(base, arch));
        Ok(BaseImageSpec { arch, base, cloud, keep, name, origin })
    }
}

impl From<BaseImageSpec> for LooseBaseImage {
    fn from(spec: BaseImageSpec) -> Self {
        let BaseImageSpec { arch, base, cloud, keep, name, origin } = spec;
        let (mirror, source) = match origin {
            Origin::Mirror(mirror) => (mirror, None),
            Origin::Download { url, sha256 } => (None, Some(LooseDownload { url, sha256 })),
        };
        LooseBaseImage { arch, base, cloud, keep, name: Some(name), mirror, source }
    }
}

impl BaseImageSpec {
    /// What a base image is called where nobody says otherwise.
    pub fn default_name(base: Release, arch: Arch) -> ImageName {
        ImageName::plain(format!("imagewright-base-{base}-{arch}"))
    }

    /// The upload that it is, once it is known what is fetched.
    pub fn upload(&self, source: Source) -> UploadSpec {
        let property = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        UploadSpec {
            name: self.name.clone(),
            arch: self.arch,
            cloud: self.cloud.clone(),
            keep: self.keep,
            source,
            disk_format: DiskFormat::Auto,
            properties: [property("os_distro", "ubuntu"), property("os_version", self.base.version())].into(),
            visibility: Visibility::Private,
        }
    }
}

impl Release {
    /// Every release, oldest first.
    pub const ALL: [Release; 4] = [Release::Focal, Release::Jammy, Release::Noble, Release::Resolute];

    /// The first word of its name, in lower case.
    pub fn codename(self) -> &'static str {
        match self {
            Release::Focal => "focal",
            Release::Jammy => "jammy",
            Release::Noble => "noble",
            Release::Resolute => "resolute",
        }
    }

    /// Its number.
    pub fn version(self) -> &'static str {
        match self {
            Release::Focal => "20.04",
            Release::Jammy => "22.04",
            Release::Noble => "24.04",
            Release::Resolute => "26.04",
        }
    }
}

impl FromStr for Release {
    type Err = UnknownRelease;

    fn from_str(word: &str) -> Result<Self, UnknownRelease> {
        Release::ALL
            .into_iter()
            .find(|release| word == release.codename() || word == release.version())
            .ok_or_else(|| UnknownRelease { given: word.chars().take(40).collect() })
    }
}

impl TryFrom<String> for Release {
    type Error = UnknownRelease;

    fn try_from(word: String) -> Result<Self, UnknownRelease> {
        word.parse()
    }
}

impl From<Release> for String {
    fn from(release: Release) -> String {
        release.codename().to_owned()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.codename())
    }
}

impl JsonSchema for Release {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Release".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let words: Vec<&str> = Release::ALL.into_iter().flat_map(|one| [one.codename(), one.version()]).collect();
        json_schema!({ "enum": words, "description": "An Ubuntu release, by codename or version." })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(change: Value) -> Result<BaseImageSpec, String> {
        let mut spec = json!({ "arch": "x64", "base": "24.04", "cloud": "edge-1" });
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(spec).map_err(|error| error.to_string())
    }

    #[test]
    fn a_release_is_named_by_codename_or_version() {
        let spec = read(json!({})).unwrap();
        assert_eq!(spec.base, Release::Noble);
        assert_eq!(spec.name.as_str(), "imagewright-base-noble-amd64");
        assert_eq!(read(json!({ "base": "noble", "name": "mine" })).unwrap().name.as_str(), "mine");
        assert!(read(json!({ "base": "bionic" })).unwrap_err().contains("noble"));
    }

    #[test]
    fn there_is_one_origin() {
        let source = json!({ "url": "https://h/i", "sha256": "AB".repeat(32) });
        let spec = read(json!({ "source": source })).unwrap();
        assert_eq!(spec.origin, Origin::Download { url: "https://h/i".parse().unwrap(), sha256: "ab".repeat(32) });
        assert!(read(json!({ "source": source, "mirror": "https://m" })).unwrap_err().contains("both"));
        assert!(read(json!({ "source": { "url": "https://h", "sha256": "12" } })).unwrap_err().contains("64"));
        assert!(!read(json!({ "mirror": "m?s3cret" })).unwrap_err().contains("s3cret"));
    }
}
