//! Where this process may take image bytes from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::CloudPool;
use super::StoreError;
use crate::arch::Arch;
use crate::job::{DiskFormat, ImageRef, Release};
use crate::openstack::{CloudErrorKind, ImageStatus};
use crate::source::base_image::{self, Keyring};
use crate::source::file::RootError;
use crate::source::url::{PolicyError as UrlPolicyError, Text};
use crate::source::{DigestCache, FileRoots, HashAlgo, Opened, SourceError, UrlClient, UrlPolicy};
use futures_util::StreamExt as _;
use tokio::time::timeout;

/// A file that does not open for this long is on a disk that is away, as over NFS.
const OPEN_STALL: Duration = Duration::from_secs(30);

/// The field of a job that names an image to copy.
pub(super) const IMAGE_FIELD: &str = "spec.source.image";

/// Files beneath the roots, addresses of the hosts, and what is known of their digests.
pub struct Sources {
    roots: FileRoots,
    urls: UrlClient,
    digests: DigestCache,
    keyring: PathBuf,
}

/// Options that name no usable source.
#[derive(Debug, thiserror::Error)]
pub enum SourcesError {
    /// A file root.
    #[error(transparent)]
    Root(#[from] RootError),
    /// A url host.
    #[error(transparent)]
    Host(#[from] UrlPolicyError),
    /// The HTTP client could not be made.
    #[error("no HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Sources {
    /// Sources beneath `file_roots` and on `url_hosts`.
    ///
    /// # Errors
    /// [`SourcesError`] names the option at fault.
    pub fn new<P: AsRef<Path>, S: AsRef<str>>(file_roots: &[P], url_hosts: &[S]) -> Result<Sources, SourcesError> {
        Ok(Sources {
            roots: FileRoots::open_all(file_roots)?,
            urls: UrlClient::new(UrlPolicy::new(url_hosts)?)?,
            digests: DigestCache::default(),
            keyring: PathBuf::from(base_image::KEYRING),
        })
    }

    /// Trust the keys in this file, instead of those of [`base_image::KEYRING`].
    #[must_use]
    pub fn with_keyring(self, keyring: PathBuf) -> Sources {
        Sources { keyring, ..self }
    }

    /// The newest cloud image of a release, as a signed list of its mirror says. The keyring is read each time.
    ///
    /// # Errors
    /// As [`base_image::find`].
    pub async fn base_image(
        &self,
        release: Release,
        arch: Arch,
        mirror: Option<&Url>,
    ) -> Result<base_image::Found, StoreError> {
        let keyring = Keyring::read(&self.keyring)?;
        Ok(base_image::find(&self.urls, &keyring, release, arch, mirror).await?)
    }

    pub(super) async fn file(&self, path: &str, declared: DiskFormat) -> Result<Opened, StoreError> {
        let (roots, wanted) = (self.roots.clone(), path.to_owned());
        let opened = timeout(OPEN_STALL, tokio::task::spawn_blocking(move || roots.open(&wanted))).await;
        let opened = opened.map_err(|_| StoreError::Transient(format!("{path} does not open; is its disk away?")))?;
        let file = opened.map_err(|error| StoreError::Transient(error.to_string()))??;
        Ok(Opened::from_file(file, declared, &self.digests).await?)
    }

    pub(super) async fn url(&self, url: &Url, sha256: &str, declared: DiskFormat) -> Result<Opened, StoreError> {
        Ok(Opened::from_url(&self.urls, url, sha256, declared).await?)
    }

    /// A small text, such as a script: at most `most` bytes. `field` is blamed for what is refused.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn text(&self, url: &Url, field: &str, most: usize) -> Result<Text, SourceError> {
        self.urls.text(url, field, most).await
    }

    /// An image of another cloud, as a stream. Its own digest is taken over: nothing is hashed here.
    pub(super) async fn image(
        &self,
        pool: &CloudPool,
        wanted: &ImageRef,
        declared: DiskFormat,
    ) -> Result<Opened, StoreError> {
        let glance = pool.glance(&wanted.cloud).await.map_err(of_source_cloud)?;
        let gone = || StoreError::Rejected {
            field: IMAGE_FIELD,
            reason: format!("source pruned: {} has no image {}", wanted.cloud, wanted.id),
        };
        let image = match glance.get(&wanted.id).await {
            Ok(seen) => seen.value,
            Err(error) if error.kind == CloudErrorKind::NotFound => return Err(gone()),
            Err(error) => return Err(error.into()),
        };
        match image.status {
            ImageStatus::Active => {}
            ImageStatus::Deleted | ImageStatus::PendingDelete => return Err(gone()),
            ImageStatus::Queued | ImageStatus::Saving | ImageStatus::Uploading | ImageStatus::Importing => {
                return Err(StoreError::Transient(format!("the source image is {} yet", image.status.as_str())));
            }
            ImageStatus::Killed | ImageStatus::Deactivated | ImageStatus::Other(_) => {
                let reason = format!("the source image is {}", image.status.as_str());
                return Err(StoreError::Rejected { field: IMAGE_FIELD, reason });
            }
        }
        let known = match (image.os_hash_algo.as_deref(), image.os_hash_value) {
            (Some("sha512"), Some(value)) => Some((HashAlgo::Sha512, value)),
            (Some("sha256"), Some(value)) => Some((HashAlgo::Sha256, value)),
            _ => None,
        };
        let (length, data) = glance.download(&wanted.id).await?;
        if image.size.is_some_and(|size| size != length) {
            return Err(StoreError::Transient(format!(
                "the source cloud sends {length} bytes of an image of {}",
                image.size.unwrap_or(0)
            )));
        }
        let stream = data.map(|chunk| {
            chunk.map_err(|error| SourceError::Transient { reason: error.to_string(), retry_after: error.retry_after })
        });
        Ok(Opened::from_stream(length, stream, declared, known).await?)
    }
}

/// A source cloud that is not configured is another field than the destination.
fn of_source_cloud(error: StoreError) -> StoreError {
    match error {
        StoreError::Config(error) => StoreError::SourceCloud(error),
        StoreError::Cloud(_)
        | StoreError::SourceCloud(_)
        | StoreError::Source(_)
        | StoreError::Rejected { .. }
        | StoreError::Transient(_) => error,
    }
}
