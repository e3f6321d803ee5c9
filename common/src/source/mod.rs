//! Where image bytes come from: a file, a url, another Glance. All end as the same thing, [`Opened`]: a known length, a
//! known format, a stream of exactly that many bytes, and their digest when the stream has ended.
//!
//! Reading order: [`mod@format`] (what bytes are), [`mod@file`] and [`url`] (how they are reached, and what is refused),
//! [`digest`] (hashed once), `pump` (the stream itself).

pub mod base_image;
pub mod digest;
pub mod file;
pub mod format;
mod pump;
#[cfg(test)]
mod tests;
mod ticket;
pub mod url;

use std::time::Duration;

use ::url::Url;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use crate::job::DiskFormat;
use digest::{Claim, Key};
pub use digest::{DigestCache, Digests, HashAlgo};
pub use file::{FileRoots, FileSource};
use format::FormatError;
use pump::{Chunks, Promise};
pub use ticket::Ticket;
use ticket::{Pending, digest_of, drain, run, sha512, unhashed};
pub use url::{UrlClient, UrlPolicy};

/// Why bytes cannot be had, by what happens next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The job is wrong. Never tried again.
    #[error("{field}: {reason}")]
    Refused {
        /// The field at fault, as in `spec.source.file`.
        field: String,
        /// What is wrong with it and what would be right.
        reason: String,
    },
    /// The source is away or in trouble.
    #[error("{reason}")]
    Transient {
        /// What happened.
        reason: String,
        /// How long the source asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// A file changed while it was read: a failed attempt.
    #[error("{reason}")]
    Changed {
        /// What changed.
        reason: String,
    },
}

/// A source whose length and format are known and fit the job, ready to be sent once.
pub struct Opened {
    /// Size in bytes; more than 0.
    pub length: u64,
    /// What was found and agreed upon; never `auto`.
    pub format: DiskFormat,
    body: Body,
}

enum Body {
    File { file: FileSource, cache: DigestCache },
    Stream { chunks: Chunks, sha256: Option<String>, known: Option<(HashAlgo, String)> },
}

impl Opened {
    /// A file, looked at. `cache` is the one of the process.
    ///
    /// # Errors
    /// [`SourceError`]: refused as no image or not the declared one, changed, or unreadable.
    pub async fn from_file(file: FileSource, declared: DiskFormat, cache: &DigestCache) -> Result<Opened, SourceError> {
        let reader = file.clone();
        let found = tokio::task::spawn_blocking(move || inspect_file(&reader)).await;
        let found = found.map_err(|error| transient(error.to_string()))??;
        let format = agree(declared, found, file::FIELD)?;
        Ok(Opened { length: file.length(), format, body: Body::File { file, cache: cache.clone() } })
    }

    /// What an https address holds, asked for and looked at; `sha256` is checked before the last byte is given out.
    ///
    /// # Errors
    /// [`SourceError`]: refused by policy, by the server, or as no image or not the declared one; or transient.
    pub async fn from_url(
        client: &UrlClient,
        url: &Url,
        sha256: &str,
        declared: DiskFormat,
    ) -> Result<Opened, SourceError> {
        let download = client.get(url, url::FIELD).await?;
        let (chunks, found) = look_ahead(download.chunks.boxed(), download.length, url::FIELD).await?;
        let format = agree(declared, found, url::FIELD)?;
        let body = Body::Stream { chunks, sha256: Some(sha256.to_ascii_lowercase()), known: None };
        Ok(Opened { length: download.length, format, body })
    }

    /// An image that a Glance sends. `known` is the digest that Glance gives for it; with a SHA-512 nothing is hashed.
    ///
    /// # Errors
    /// [`SourceError`]: refused as no image or not the declared one, or what the stream fails with.
    pub async fn from_stream(
        length: u64,
        stream: impl Stream<Item = Result<Bytes, SourceError>> + Send + 'static,
        declared: DiskFormat,
        known: Option<(HashAlgo, String)>,
    ) -> Result<Opened, SourceError> {
        let (chunks, found) = look_ahead(stream.boxed(), length, IMAGE_FIELD).await?;
        let format = agree(declared, found, IMAGE_FIELD)?;
        let known = known.map(|(algo, digest)| (algo, digest.to_ascii_lowercase()));
        Ok(Opened { length, format, body: Body::Stream { chunks, sha256: None, known } })
    }

    /// The bytes in order, exactly `length` of them (fewer or more is an error), and the ticket for their digest. The
    /// last chunk comes only when the source has ended well, so what failed never has its full length. Threads that
    /// read or hash end when the stream is dropped.
    pub fn into_stream(self) -> (impl Stream<Item = std::io::Result<Bytes>> + Send + 'static, Ticket) {
        let length = self.length;
        let (chunks, sha256, sums, algos, claim) = match self.body {
            Body::File { file, cache } => {
                let key = Key { identity: file.identity(), algo: HashAlgo::Sha512 };
                let (sums, claim) = match cache.claim(key) {
                    Claim::Known(digest) => (Pending::Told(sha512(digest)), None),
                    Claim::Compute(guard) => (Pending::Hashed(None), Some(guard)),
                    Claim::Wait(_) => (Pending::Shared { file: file.clone(), cache }, None),
                };
                let algos = if claim.is_some() { vec![HashAlgo::Sha512] } else { Vec::new() };
                (pump::read_file(file), None, sums, algos, claim)
            }
            Body::Stream { chunks, sha256, known: Some((HashAlgo::Sha512, digest)) } if sha256.is_none() => {
                (chunks, None, Pending::Told(sha512(digest)), Vec::new(), None)
            }
            Body::Stream { chunks, sha256, known } => {
                let algos =
                    if sha256.is_some() { vec![HashAlgo::Sha512, HashAlgo::Sha256] } else { vec![HashAlgo::Sha512] };
                let told = known.filter(|(algo, _)| *algo == HashAlgo::Sha256).map(|(_, digest)| digest);
                (chunks, sha256, Pending::Hashed(told), algos, None)
            }
        };
        let promise = Promise { length, sha256: sha256.map(|digest| (digest, url::DIGEST_FIELD)), stall: pump::STALL };
        let (stream, run) = run(chunks, promise, &algos, claim);
        (stream, Ticket { run, sums })
    }

    /// Read everything without sending it, for the digest alone. What is known already is not read again.
    ///
    /// # Errors
    /// [`SourceError`], as for a transfer.
    pub async fn digest(self, algo: HashAlgo) -> Result<String, SourceError> {
        match self.body {
            Body::File { file, cache } => digest_of(&file, &cache, algo).await,
            Body::Stream { known: Some((told, digest)), .. } if told == algo => Ok(digest),
            Body::Stream { chunks, sha256, .. } => {
                let mut algos = vec![algo];
                algos.extend(sha256.as_ref().map(|_| HashAlgo::Sha256));
                let sha256 = sha256.map(|digest| (digest, url::DIGEST_FIELD));
                let promise = Promise { length: self.length, sha256, stall: pump::STALL };
                drain(chunks, promise, &algos, None).await?.of(algo).cloned().ok_or_else(unhashed)
            }
        }
    }
}

/// The field of a job that names an image of another cloud.
const IMAGE_FIELD: &str = "spec.source.image";

/// The field of a job that says the format.
const FORMAT_FIELD: &str = "spec.disk_format";

fn inspect_file(file: &FileSource) -> Result<DiskFormat, SourceError> {
    let size = |wanted: usize| usize::try_from(file.length()).unwrap_or(wanted).min(wanted);
    let mut head = vec![0; size(format::HEAD)];
    let mut read = file.read_at(&mut head, 0)?;
    if format::wanted(&head) > head.len() {
        head.resize(size(format::wanted(&head)), 0);
        read = file.read_at(&mut head, 0)?;
    }
    let mut tail = vec![0; size(format::TAIL)];
    let from = file.length().saturating_sub(u64::try_from(tail.len()).unwrap_or_default());
    if read < head.len() || file.read_at(&mut tail, from)? < tail.len() {
        return Err(SourceError::Changed { reason: "the file ended before the size it has".to_owned() });
    }
    format::inspect(&head, Some(&tail), file.length()).map_err(|error| unfit(&error, file::FIELD))
}

/// Read as much as [`format::inspect`] needs, and give it back with the rest behind it.
async fn look_ahead(mut chunks: Chunks, length: u64, field: &str) -> Result<(Chunks, DiskFormat), SourceError> {
    let mut head = BytesMut::new();
    while head.len() < format::wanted(&head) {
        match pump::next_chunk(&mut chunks, pump::STALL).await? {
            Some(chunk) => head.extend_from_slice(&chunk),
            None => break,
        }
    }
    let head = head.freeze();
    let (have, needed) =
        (u64::try_from(head.len()).unwrap_or(u64::MAX), u64::try_from(format::wanted(&head)).unwrap_or(0));
    if have < needed.min(length) {
        return Err(transient(format!("the source ended after {have} of {length} bytes")));
    }
    let found = format::inspect(&head, None, length).map_err(|error| unfit(&error, field))?;
    let ahead = Ok(head);
    Ok((stream::iter([ahead]).chain(chunks).boxed(), found))
}

fn agree(declared: DiskFormat, found: DiskFormat, field: &str) -> Result<DiskFormat, SourceError> {
    format::agree(declared, found).map_err(|error| unfit(&error, field))
}

fn unfit(error: &FormatError, field: &str) -> SourceError {
    let field = if matches!(error, FormatError::Mismatch { .. }) { FORMAT_FIELD } else { field };
    SourceError::Refused { field: field.to_owned(), reason: error.to_string() }
}

fn transient(reason: String) -> SourceError {
    SourceError::Transient { reason, retry_after: None }
}
