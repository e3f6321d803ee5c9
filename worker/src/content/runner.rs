//! Which runner agent goes into an image, from what GitHub says of a release.

use imagewright_common::arch::Arch;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::ContentError;

/// A runner agent that is known to the last byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Runner {
    /// Three numbers, as in `2.330.0`.
    pub(crate) version: String,
    /// Where its archive is.
    pub(crate) url: Url,
    /// Its SHA-256, 64 lower-case hexadecimal digits.
    pub(crate) sha256: String,
}

/// The archive for an architecture in a release as GitHub's API describes it (`GET /repos/{owner}/{repo}/releases/latest`
/// or `/releases/tags/v{version}`; the assets of releases since June 2025 have a digest). `mirror` holds the archives of a
/// site that cannot reach GitHub, at `v{version}/{file}`.
///
/// # Errors
/// What the answer lacks.
pub(crate) fn choose(release: &[u8], arch: Arch, mirror: Option<&Url>) -> Result<Runner, ContentError> {
    let wrong = |reason: String| ContentError::Choice { field: "runner version", reason };
    let release: Value = serde_json::from_slice(release).map_err(|error| wrong(format!("no release: {error}")))?;
    let tag = release.get("tag_name").and_then(Value::as_str).unwrap_or_default();
    let version = tag.strip_prefix('v').filter(|version| is_version(version));
    let version = version.ok_or_else(|| wrong("the release has no tag like v2.330.0".to_owned()))?;
    let file = format!("actions-runner-linux-{}-{version}.tar.gz", arch.runner());
    let assets = release.get("assets").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let asset = assets.iter().find(|asset| asset.get("name").and_then(Value::as_str) == Some(file.as_str()));
    let asset = asset.ok_or_else(|| wrong(format!("release {version} has no {file}")))?;
    let text = |key: &str| asset.get(key).and_then(Value::as_str).unwrap_or_default();
    let sha256 = text("digest").strip_prefix("sha256:").filter(|digest| is_digest(digest));
    let sha256 = sha256.ok_or_else(|| wrong(format!("release {version} tells no SHA-256 of {file}")))?;
    let url = match mirror {
        None => Url::parse(text("browser_download_url")).ok().filter(|url| url.scheme() == "https"),
        Some(mirror) => beneath(mirror, &[&format!("v{version}"), &file]),
    };
    let url = url.ok_or_else(|| wrong(format!("release {version} tells no https address of {file}")))?;
    Ok(Runner { version: version.to_owned(), url, sha256: sha256.to_ascii_lowercase() })
}

fn beneath(base: &Url, path: &[&str]) -> Option<Url> {
    let mut url = base.clone();
    url.path_segments_mut().ok()?.pop_if_empty().extend(path);
    Some(url)
}

fn is_version(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    let is_number = |part: &&str| (1..=5).contains(&part.len()) && part.bytes().all(|digit| digit.is_ascii_digit());
    parts.len() == 3 && parts.iter().all(is_number)
}

fn is_digest(word: &str) -> bool {
    word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}
