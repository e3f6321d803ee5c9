//! From a source to a stream of exactly so many bytes, hashed beside it, with the last chunk held back until all is well.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::digest::{Feed, Sums};
use super::file::FileSource;
use super::{SourceError, transient};

/// Bytes read from a file at a time. Larger was measured to be no faster, and up to ten chunks of a transfer live at
/// once, so that eight transfers stay below 20 MiB.
pub(super) const CHUNK: usize = 256 * 1024;

/// How many chunks may wait between the reader of a file and the transfer.
const READY_MAX: usize = 2;

/// How many used buffers are kept for the next reads of the same transfer.
const SPARE_MAX: usize = 4;

/// How long a source may give nothing while it is asked.
pub(super) const STALL: Duration = Duration::from_secs(60);

/// The bytes of a source as they come.
pub(super) type Chunks = BoxStream<'static, Result<Bytes, SourceError>>;

/// How the stream ended; the sums if they had to be known before the end.
pub(super) type End = oneshot::Receiver<Result<Option<Sums>, SourceError>>;

/// What the pump knows of the bytes beforehand.
pub(super) struct Promise {
    /// Exactly so many bytes.
    pub(super) length: u64,
    /// Their SHA-256, and the field of the job that says so.
    pub(super) sha256: Option<(String, &'static str)>,
    /// How long the source may give nothing while it is asked; [`STALL`].
    pub(super) stall: Duration,
}

struct Pump {
    source: Chunks,
    promise: Promise,
    seen: u64,
    held: Option<Bytes>,
    feed: Option<mpsc::Sender<Feed>>,
    sums: Option<oneshot::Receiver<Sums>>,
    end: Option<oneshot::Sender<Result<Option<Sums>, SourceError>>>,
}

/// A stream of the bytes of `source`, and how it ended. The end is told before the last chunk is given out, since an
/// HTTP client that has had its Content-Length never asks again. `hasher` is fed along; its sums are awaited only if a
/// SHA-256 was promised.
pub(super) fn pump(
    source: Chunks,
    promise: Promise,
    feed: Option<mpsc::Sender<Feed>>,
    sums: Option<oneshot::Receiver<Sums>>,
) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, End) {
    let (end, ended) = oneshot::channel();
    let pump = Pump { source, promise, seen: 0, held: None, feed, sums, end: Some(end) };
    let stream = stream::unfold(pump, |mut pump| async move {
        pump.end.as_ref()?;
        let item = match pump.next().await {
            Ok(Some(chunk)) => Some(Ok(chunk)),
            Ok(None) => pump.close().await,
            Err(error) => Some(pump.fail(error)),
        };
        item.map(|item| (item, pump))
    });
    (stream, ended)
}

impl Pump {
    /// The chunk before the one that just came; `None` when the source has ended.
    async fn next(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let Some(chunk) = next_chunk(&mut self.source, self.promise.stall).await? else { return Ok(None) };
            if chunk.is_empty() {
                continue;
            }
            self.seen = self.seen.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
            if self.seen > self.promise.length {
                return Err(transient(format!(
                    "the source gives more than the {} bytes it announced",
                    self.promise.length
                )));
            }
            self.hash(Feed::Chunk(chunk.clone())).await?;
            if let Some(ready) = self.held.replace(chunk) {
                return Ok(Some(ready));
            }
        }
    }

    async fn hash(&mut self, feed: Feed) -> Result<(), SourceError> {
        let Some(sender) = &self.feed else { return Ok(()) };
        sender.send(feed).await.map_err(|_| transient("the hash thread has ended".to_owned()))
    }

    /// The last chunk, if all is well.
    async fn close(&mut self) -> Option<io::Result<Bytes>> {
        let settled = self.settle().await;
        match settled {
            Ok(sums) => {
                self.end.take().map(|end| end.send(Ok(sums)).ok());
                self.held.take().map(Ok)
            }
            Err(error) => Some(self.fail(error)),
        }
    }

    async fn settle(&mut self) -> Result<Option<Sums>, SourceError> {
        let (seen, length) = (self.seen, self.promise.length);
        if seen != length {
            return Err(transient(format!("the source ended after {seen} of {length} bytes")));
        }
        self.hash(Feed::End).await?;
        let (Some((expected, field)), Some(sums)) = (&self.promise.sha256, self.sums.take()) else { return Ok(None) };
        let sums = sums.await.map_err(|_| transient("the hash thread has ended".to_owned()))?;
        match &sums.sha256 {
            Some(found) if found.eq_ignore_ascii_case(expected) => Ok(Some(sums)),
            found => {
                let found = found.as_deref().unwrap_or("unknown");
                let reason =
                    format!("the bytes hash to {found}, not to the {expected} of the job; correct one of them");
                Err(SourceError::Refused { field: (*field).to_owned(), reason })
            }
        }
    }

    fn fail(&mut self, error: SourceError) -> io::Result<Bytes> {
        self.held = None;
        self.feed = None;
        if let Some(end) = self.end.take() {
            // Nobody may be waiting for the ticket.
            end.send(Err(error.clone())).ok();
        }
        Err(io::Error::other(error))
    }
}

/// The next chunk of a source, within `stall`.
pub(super) async fn next_chunk(source: &mut Chunks, stall: Duration) -> Result<Option<Bytes>, SourceError> {
    match tokio::time::timeout(stall, source.next()).await {
        Ok(next) => next.transpose(),
        Err(_) => Err(transient(format!("the source gave nothing for {} s", stall.as_secs()))),
    }
}

/// Read `file` from end to end in a thread of its own, which ends when the stream is dropped. The last chunk comes only
/// if the file is still what it was when it was opened.
pub(super) fn read_file(file: FileSource) -> Chunks {
    let (give, take) = mpsc::channel(READY_MAX);
    let refused = give.clone();
    let started = std::thread::Builder::new().name("image-read".to_owned()).spawn(move || read(&file, &give));
    if let Err(error) = started {
        // The channel is new and has room.
        refused.try_send(Err(transient(format!("no thread to read with: {error}")))).ok();
    }
    drop(refused);
    stream::unfold(take, |mut take| async move { take.recv().await.map(|chunk| (chunk, take)) }).boxed()
}

fn read(file: &FileSource, give: &mpsc::Sender<Result<Bytes, SourceError>>) {
    file.read_ahead();
    let spares = Spares::default();
    let mut offset = 0u64;
    while offset < file.length() {
        let chunk = read_chunk(file, offset, &spares);
        let size = chunk.as_ref().map(Bytes::len).unwrap_or_default();
        offset = offset.saturating_add(u64::try_from(size).unwrap_or(u64::MAX));
        let failed = chunk.is_err();
        if give.blocking_send(chunk).is_err() || failed {
            return;
        }
    }
}

fn read_chunk(file: &FileSource, offset: u64, spares: &Spares) -> Result<Bytes, SourceError> {
    let left = file.length().saturating_sub(offset);
    let size = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
    let mut buffer = spares.take();
    buffer.resize(size, 0);
    let read = file.read_at(&mut buffer, offset)?;
    if read < size || u64::try_from(size).ok() == Some(left) {
        file.unchanged()?;
    }
    if read < size {
        return Err(SourceError::Changed { reason: "the file ended before the size it has".to_owned() });
    }
    Ok(Bytes::from_owner(Lent { buffer, home: spares.clone() }))
}

/// Used buffers of one transfer. Fresh ones would be mapped and zeroed by the kernel at every read.
#[derive(Clone, Default)]
struct Spares(Arc<Mutex<Vec<Vec<u8>>>>);

impl Spares {
    fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(CHUNK))
    }
}

/// A buffer that goes home when the last holder lets go of it.
struct Lent {
    buffer: Vec<u8>,
    home: Spares,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut spares = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spares.len() < SPARE_MAX {
            spares.push(std::mem::take(&mut self.buffer));
        }
    }
}
