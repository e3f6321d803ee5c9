//! The `upload` job.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use super::words::{CloudName, ImageName, Keep};
use crate::arch::Arch;

/// Make an image on one cloud from a source, verify it, then prune older revisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadSpec {
    /// What the image is called; all revisions share the name.
    pub name: ImageName,
    /// What it runs on.
    pub arch: Arch,
    /// Where it goes.
    pub cloud: CloudName,
    /// How many revisions stay on that cloud, 1 to 99.
    #[serde(default)]
    pub keep: Keep,
    /// Where the bytes come from.
    pub source: Source,
    /// The format of the disk; `auto` tells it from the bytes.
    #[serde(default)]
    pub disk_format: DiskFormat,
    /// Further properties of the image. Ours (`imagewright_*`), `owner*`, `os_hash_*` and core attributes are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: BTreeMap<String, String>,
    /// Who may see the image.
    #[serde(default)]
    pub visibility: Visibility,
}

/// Where the bytes of an image come from: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "LooseSource", into = "LooseSource")]
#[schemars(with = "SourceSchema")]
pub enum Source {
    /// A path that every worker of the lane sees, beneath one of its file roots.
    File(String),
    /// An https address and the SHA-256 digest of what it holds.
    Url {
        /// The address.
        url: Url,
        /// 64 lower-case hexadecimal digits.
        sha256: String,
    },
    /// An image of a cloud, streamed from Glance to Glance.
    Image(ImageRef),
}

/// An image of one cloud.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRef {
    /// The cloud that holds it.
    pub cloud: CloudName,
    /// Its Glance id.
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9_-]*$"))]
    pub id: String,
}

/// How the message spells a source, before "exactly one" is checked.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LooseSource {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "address")]
    url: Option<Url>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<ImageRef>,
}

/// An address may hold a signature, so the error does not quote it, as that of `Url` itself would.
fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Url>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(|text| parse_address(&text)).transpose()
}

/// The same where there must be one.
pub(super) fn one_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    parse_address(&String::deserialize(deserializer)?)
}

fn parse_address<E: Error>(text: &str) -> Result<Url, E> {
    Url::parse(text).map_err(|error| E::custom(format!("no address: {error}")))
}

/// What the schema says of a source; never built.
#[derive(JsonSchema)]
#[schemars(rename = "Source", untagged, deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
enum SourceSchema {
    /// A path beneath a file root of the workers.
    File {
        /// An absolute path.
        #[schemars(regex(pattern = r"^/[^\u0000]*$"))]
        file: String,
    },
    /// An https address and the digest of what it holds.
    Url {
        /// Begins with https.
        #[schemars(regex(pattern = "^https://"))]
        url: String,
        /// SHA-256 in hexadecimal.
        #[schemars(regex(pattern = "^[0-9a-fA-F]{64}$"))]
        sha256: String,
    },
    /// An image of another cloud.
    Image {
        /// Which one.
        image: ImageRef,
    },
}

/// A source that is not exactly one of the three.
#[derive(Debug, thiserror::Error)]
pub enum BadSource {
    /// None or several were given.
    #[error("source is exactly one of {{\"file\"}}, {{\"url\", \"sha256\"}} or {{\"image\"}}")]
    NotOne,
    /// A relative path would mean another file on each worker.
    #[error("file is an absolute path, as every worker of the lane sees it")]
    Relative,
    /// The digest is not 64 hexadecimal digits.
    #[error("sha256 is 64 hexadecimal digits")]
    Digest,
    /// The image id is empty or holds characters no id has.
    #[error("image id holds 1 to 255 letters, digits, '-' or '_'")]
    ImageId,
}

impl TryFrom<LooseSource> for Source {
    type Error = BadSource;

    fn try_from(loose: LooseSource) -> Result<Self, BadSource> {
        match loose {
            LooseSource { file: Some(path), url: None, sha256: None, image: None } => {
                if path.starts_with('/') && !path.contains('\0') {
                    Ok(Source::File(path))
                } else {
                    Err(BadSource::Relative)
                }
            }
            LooseSource { file: None, url: Some(url), sha256: Some(sha256), image: None } => {
                Ok(Source::Url { url, sha256: digest(&sha256)? })
            }
            LooseSource { file: None, url: None, sha256: None, image: Some(image) } => {
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
                let sane = (1..=255).contains(&image.id.len()) && image.id.chars().all(fits);
                if sane { Ok(Source::Image(image)) } else { Err(BadSource::ImageId) }
            }
            LooseSource { .. } => Err(BadSource::NotOne),
        }
    }
}

fn digest(hex: &str) -> Result<String, BadSource> {
    let fits = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    if fits { Ok(hex.to_ascii_lowercase()) } else { Err(BadSource::Digest) }
}

impl Source {
    /// An https source; the digest is checked for its form.
    ///
    /// # Errors
    /// [`BadSource::Digest`] when `sha256` is not 64 hexadecimal digits.
    pub fn url(url: Url, sha256: &str) -> Result<Source, BadSource> {
        Ok(Source::Url { url, sha256: digest(sha256)? })
    }
}

impl From<Source> for LooseSource {
    fn from(source: Source) -> Self {
        let mut loose = LooseSource { file: None, url: None, sha256: None, image: None };
        match source {
            Source::File(path) => loose.file = Some(path),
            Source::Url { url, sha256 } => (loose.url, loose.sha256) = (Some(url), Some(sha256)),
            Source::Image(image) => loose.image = Some(image),
        }
        loose
    }
}

/// Shown without the query string of an address, which may hold a signature.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "file {path}"),
            Source::Url { url, .. } => {
                write!(f, "{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
            }
            Source::Image(image) => write!(f, "image {} of {}", image.id, image.cloud),
        }
    }
}

/// The format of a disk image, in Glance's words (`disk_format` of the Image API v2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// Tell it from the bytes.
    #[default]
    Auto,
    /// QEMU copy on write, version 2 or 3.
    Qcow2,
    /// Plain blocks.
    Raw,
    /// VMware, stream-optimised or monolithic sparse.
    Vmdk,
    /// VirtualBox.
    Vdi,
    /// Virtual PC.
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// Optical disc.
    Iso,
}

impl DiskFormat {
    /// Glance's word.
    pub fn as_str(self) -> &'static str {
        match self {
            DiskFormat::Auto => "auto",
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Raw => "raw",
            DiskFormat::Vmdk => "vmdk",
            DiskFormat::Vdi => "vdi",
            DiskFormat::Vhd => "vhd",
            DiskFormat::Vhdx => "vhdx",
            DiskFormat::Iso => "iso",
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who may see an image (`visibility` of the Image API v2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// The project alone.
    #[default]
    Private,
    /// Projects that are made members.
    Shared,
    /// Everybody who asks for it by id.
    Community,
    /// Everybody; usually needs a role.
    Public,
}

impl Visibility {
    /// Glance's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Visibility::Private => "private",
            Visibility::Shared => "shared",
            Visibility::Community => "community",
            Visibility::Public => "public",
        }
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
