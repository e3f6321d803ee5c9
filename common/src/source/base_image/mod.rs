//! Ubuntu's cloud images: where one is, and which digest a signed list of its mirror gives for it.

mod keyring;
#[cfg(test)]
mod tests;

use std::time::Duration;

use ::url::Url;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::SourceError;
use super::url::UrlClient;
use crate::arch::Arch;
use crate::job::Release;
pub use keyring::{Keyring, KeyringError};

/// Where Ubuntu's package `ubuntu-keyring` puts the keys that sign cloud images.
pub const KEYRING: &str = "/usr/share/keyrings/ubuntu-cloudimage-keyring.gpg";

/// Where the images come from when no mirror is named.
pub const MIRROR: &str = "https://cloud-images.ubuntu.com/";

/// The field of a job that names a mirror.
pub const FIELD: &str = "spec.mirror";

/// The list of digests and its detached signature, beside the images.
const LIST: &str = "SHA256SUMS";
const SIGNATURE: &str = "SHA256SUMS.gpg";

/// Upper bounds, in bytes: the real ones have 10 KiB and 1 KiB.
const LIST_MAX: u64 = 1024 * 1024;
const SIGNATURE_MAX: u64 = 64 * 1024;

/// How long one of the two may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An image that a signed list vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is.
    pub url: Url,
    /// Its SHA-256, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Fingerprint of the key that signed the list.
    pub signed_by: String,
}

/// Ask `mirror`, or [`MIRROR`], for the newest released image of `release` for `arch`.
///
/// Released images have passed Ubuntu's tests; the daily ones, at `/<codename>/current/`, have not.
///
/// # Errors
/// [`SourceError::Refused`] when the mirror may not be asked, lacks one of the three files, or what signed the list is not
/// trusted; [`SourceError::Transient`] when it does not answer, or the signature is of another list.
pub async fn find(
    urls: &UrlClient,
    keyring: &Keyring,
    release: Release,
    arch: Arch,
    mirror: Option<&Url>,
) -> Result<Found, SourceError> {
    let folder = folder(mirror, release)?;
    let list = fetch(urls, &join(&folder, LIST)?, LIST_MAX).await?;
    let signature = fetch(urls, &join(&folder, SIGNATURE)?, SIGNATURE_MAX).await?;
    let signed_by = keyring
        .verify(&list, &signature, jiff::Timestamp::now())
        .map_err(|error| of_keyring(&error, format!("{SIGNATURE} of {}: {error}", shown(&folder))))?;
    let name = format!("ubuntu-{}-server-cloudimg-{}.img", release.version(), arch.ubuntu());
    let sha256 = digest_of(&String::from_utf8_lossy(&list), &name)
        .ok_or_else(|| refused(format!("{LIST} of {} tells no digest of {name}", shown(&folder))))?;
    Ok(Found { url: join(&folder, &name)?, sha256, signed_by })
}

/// The list and its signature are asked for one after the other: between the two the mirror may have got new ones. That
/// passes; a list that somebody has changed does not, and is refused as often.
fn of_keyring(error: &KeyringError, reason: String) -> SourceError {
    match error {
        KeyringError::Bad(_) => SourceError::Transient { reason, retry_after: None },
        KeyringError::Unreadable { .. }
        | KeyringError::NoSignature(_)
        | KeyringError::UnknownKey { .. }
        | KeyringError::ExpiredKey { .. }
        | KeyringError::Revoked(_)
        | KeyringError::Time { .. }
        | KeyringError::Weak { .. } => refused(reason),
    }
}

/// The folder of the current image of a release.
fn folder(mirror: Option<&Url>, release: Release) -> Result<Url, SourceError> {
    let mut base = match mirror {
        Some(mirror) => mirror.clone(),
        None => Url::parse(MIRROR).map_err(|error| refused(error.to_string()))?,
    };
    match base.path_segments_mut() {
        Ok(mut segments) => segments.pop_if_empty().extend(["releases", release.codename(), "release", ""]),
        Err(()) => return Err(refused("an https address is needed".to_owned())),
    };
    Ok(base)
}

fn join(folder: &Url, name: &str) -> Result<Url, SourceError> {
    let mut url = folder.join(name).map_err(|error| refused(error.to_string()))?;
    url.set_query(folder.query());
    Ok(url)
}

/// Without what may be a secret.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

async fn fetch(urls: &UrlClient, url: &Url, most: u64) -> Result<Vec<u8>, SourceError> {
    let place = shown(url);
    timeout(PATIENCE, read(urls, url, most))
        .await
        .unwrap_or_else(|_| {
            Err(SourceError::Transient {
                reason: format!("{FIELD}: not read within {} s", PATIENCE.as_secs()),
                retry_after: None,
            })
        })
        .map_err(|error| match error {
            SourceError::Refused { field, reason } => {
                SourceError::Refused { field, reason: format!("{place}: {reason}") }
            }
            SourceError::Transient { reason, retry_after } => {
                SourceError::Transient { reason: format!("{place}: {reason}"), retry_after }
            }
            SourceError::Changed { .. } => error,
        })
}

async fn read(urls: &UrlClient, url: &Url, most: u64) -> Result<Vec<u8>, SourceError> {
    let download = urls.get(url, FIELD).await?;
    if download.length > most {
        return Err(refused(format!("{} bytes, where at most {most} make sense", download.length)));
    }
    let mut bytes = Vec::new();
    let mut chunks = Box::pin(download.chunks);
    while let Some(chunk) = chunks.next().await {
        bytes.extend_from_slice(&chunk?);
    }
    Ok(bytes)
}

/// The digest in a line `<64 digits> *<name>`, as sha256sum writes it (a space instead of `*` for text).
fn digest_of(list: &str, name: &str) -> Option<String> {
    list.lines().find_map(|line| {
        let (digest, rest) = line.split_once(' ')?;
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_name = rest.strip_prefix(['*', ' ']) == Some(name);
        (is_digest && is_name).then(|| digest.to_ascii_lowercase())
    })
}

fn refused(reason: String) -> SourceError {
    SourceError::Refused { field: FIELD.to_owned(), reason }
}
