//! The other half of a stream: its digest once it has ended, or why it failed.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::oneshot;

use super::digest::{Claim, DigestCache, Digests, Guard, HashAlgo, Hasher, Key, Sums};
use super::file::FileSource;
use super::pump::{self, Chunks, End, Promise, pump};
use super::{SourceError, transient};

/// The slowest that a file is expected to be read and hashed, in bytes per second, and the least that is waited for
/// somebody else who does so: beyond this, doing it oneself costs less than it saves.
const HASH_RATE: u64 = 200 * 1024 * 1024;
const PATIENCE_MIN: Duration = Duration::from_secs(5);

/// The claim to the digest of a stream, and to why it failed.
pub struct Ticket {
    pub(super) run: Run,
    pub(super) sums: Pending,
}

/// Where the digest comes from.
pub(super) enum Pending {
    /// It was known beforehand.
    Told(Digests),
    /// The hash thread of this stream; the SHA-256 if somebody told it.
    Hashed(Option<String>),
    /// Another transfer of the same file.
    Shared { file: FileSource, cache: DigestCache },
}

/// What is left of a stream besides its bytes.
pub(super) struct Run {
    end: End,
    sums: Option<oneshot::Receiver<Sums>>,
}

impl Run {
    /// What was hashed, once the stream has ended well.
    async fn finish(self) -> Result<Sums, SourceError> {
        let early = match tokio::time::timeout(pump::STALL, self.end).await {
            Ok(Ok(ended)) => ended?,
            Ok(Err(_)) => return Err(transient("the stream was dropped before its end".to_owned())),
            Err(_) => return Err(transient("the stream was not read to its end".to_owned())),
        };
        match (early, self.sums) {
            (Some(sums), _) => Ok(sums),
            (None, Some(sums)) => sums.await.map_err(|_| unhashed()),
            (None, None) => Ok(Sums::default()),
        }
    }
}

impl Ticket {
    /// Why the stream failed, if it has. Does not wait: for a request that failed while its body may still be held.
    pub fn failure(mut self) -> Option<SourceError> {
        self.run.end.try_recv().ok()?.err()
    }

    /// The digests, or why the stream failed. To be called when the request is over: a stream that was dropped early is
    /// an error at once, one that has not ended a minute later is one then.
    ///
    /// # Errors
    /// What the stream failed with; [`SourceError::Transient`] when it was not read to its end.
    pub async fn finish(self) -> Result<Digests, SourceError> {
        let sums = self.run.finish().await?;
        match self.sums {
            Pending::Told(digests) => Ok(digests),
            Pending::Hashed(told) => {
                let digest = sums.sha512.ok_or_else(unhashed)?;
                Ok(Digests { sha512: digest, sha256: sums.sha256.or(told) })
            }
            Pending::Shared { file, cache } => digest_of(&file, &cache, HashAlgo::Sha512).await.map(sha512),
        }
    }
}

/// The digest of a file: remembered, somebody else's, or computed here.
pub(super) async fn digest_of(file: &FileSource, cache: &DigestCache, algo: HashAlgo) -> Result<String, SourceError> {
    let key = Key { identity: file.identity(), algo };
    let patience = PATIENCE_MIN.max(Duration::from_secs(file.length() / HASH_RATE));
    let guard = loop {
        match cache.claim(key) {
            Claim::Known(digest) => return Ok(digest),
            Claim::Compute(guard) => break guard,
            Claim::Wait(mut waiter) => match tokio::time::timeout(patience, waiter.wait()).await {
                Ok(Some(digest)) => return Ok(digest),
                Ok(None) => {}
                Err(_) => {
                    if let Some(guard) = cache.take_over(key, &waiter) {
                        break guard;
                    }
                }
            },
        }
    };
    let promise = Promise { length: file.length(), sha256: None, stall: pump::STALL };
    let sums = drain(pump::read_file(file.clone()), promise, &[algo], Some(guard)).await?;
    sums.of(algo).cloned().ok_or_else(unhashed)
}

pub(super) fn run(
    chunks: Chunks,
    promise: Promise,
    algos: &[HashAlgo],
    claim: Option<Guard>,
) -> (impl Stream<Item = std::io::Result<Bytes>> + Send + 'static + use<>, Run) {
    let mut chunks = chunks;
    let mut hasher = None;
    if !algos.is_empty() {
        match Hasher::start(algos, claim) {
            Ok(started) => hasher = Some(started),
            Err(error) => {
                let error = transient(format!("no thread to hash with: {error}"));
                chunks = stream::iter([Err(error)]).boxed();
            }
        }
    }
    let (feed, sums) = hasher.map(|hasher| (hasher.feed, hasher.sums)).unzip();
    // The sums go to whoever needs them first: the pump if a digest is promised, else the ticket.
    let (early, late) = if promise.sha256.is_some() { (sums, None) } else { (None, sums) };
    let (stream, end) = pump(chunks, promise, feed, early);
    (stream, Run { end, sums: late })
}

/// Read to the end, for the sums.
pub(super) async fn drain(
    chunks: Chunks,
    promise: Promise,
    algos: &[HashAlgo],
    claim: Option<Guard>,
) -> Result<Sums, SourceError> {
    let (stream, run) = run(chunks, promise, algos, claim);
    let mut stream = std::pin::pin!(stream);
    // The run tells better than the stream what went wrong.
    while let Some(Ok(_)) = stream.next().await {}
    run.finish().await
}

pub(super) fn sha512(digest: String) -> Digests {
    Digests { sha512: digest, sha256: None }
}

pub(super) fn unhashed() -> SourceError {
    transient("the hash thread has ended".to_owned())
}
