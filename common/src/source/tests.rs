//! Files and streams from end to end. Addresses are tried in `url`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::*;

const MIB: usize = 1 << 20;

fn bytes(size: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut bytes = vec![0; size];
    rng.fill(&mut bytes);
    bytes[..8].copy_from_slice(b"raw disk");
    bytes
}

fn sha(bytes: &[u8]) -> (String, String) {
    use sha2::Digest;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    (hex(&sha2::Sha256::digest(bytes)), hex(&sha2::Sha512::digest(bytes)))
}

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
    roots: FileRoots,
    cache: DigestCache,
}

impl Place {
    fn with(content: &[u8]) -> Place {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        fs::write(&path, content).unwrap();
        let roots = FileRoots::open_all(&[directory.path()]).unwrap();
        Place { _directory: directory, path, roots, cache: DigestCache::default() }
    }

    async fn open(&self, declared: DiskFormat) -> Result<Opened, SourceError> {
        let file = self.roots.open(self.path.to_str().unwrap())?;
        Opened::from_file(file, declared, &self.cache).await
    }
}

/// What came out before the end or the error.
async fn collect(stream: impl Stream<Item = std::io::Result<Bytes>>) -> (Vec<u8>, Option<std::io::Error>) {
    let mut stream = std::pin::pin!(stream);
    let mut all = Vec::new();
    while let Some(item) = stream.next().await {
        match item {
            Ok(chunk) => all.extend_from_slice(&chunk),
            Err(error) => return (all, Some(error)),
        }
    }
    (all, None)
}

async fn served(length: u64, chunks: Vec<Result<Bytes, SourceError>>, known: Option<(HashAlgo, String)>) -> Opened {
    Opened::from_stream(length, stream::iter(chunks), DiskFormat::Auto, known).await.unwrap()
}

fn parts(content: &[u8], size: usize) -> Vec<Result<Bytes, SourceError>> {
    content.chunks(size).map(|part| Ok(Bytes::copy_from_slice(part))).collect()
}

#[tokio::test]
async fn a_file_comes_whole_with_its_digest() {
    for size in [1, 511, pump::CHUNK, pump::CHUNK + 1, 3 * MIB] {
        let content: Vec<u8> = bytes(size.max(8))[..size].to_vec();
        let place = Place::with(&content);
        let opened = place.open(DiskFormat::Auto).await.unwrap();
        assert_eq!((opened.length, opened.format), (u64::try_from(size).unwrap(), DiskFormat::Raw));
        let (stream, ticket) = opened.into_stream();
        assert_eq!(collect(stream).await.0, content);
        assert_eq!(ticket.finish().await.unwrap(), Digests { sha512: sha(&content).1, sha256: None });
    }
}

#[tokio::test]
async fn a_file_is_judged_before_it_is_read() {
    let refused = |content: &'static [u8], declared| async move {
        match Place::with(content).open(declared).await {
            Err(SourceError::Refused { field, reason }) => (field, reason),
            Err(error) => panic!("{error:?}"),
            Ok(_) => panic!("taken"),
        }
    };
    let (field, reason) = refused(b"", DiskFormat::Auto).await;
    assert!(field == "spec.source.file" && reason.contains("empty"), "{field}: {reason}");
    let (field, reason) = refused(b"\x1f\x8b\x08 packed", DiskFormat::Raw).await;
    assert!(field == "spec.source.file" && reason.contains("gzip"), "{field}: {reason}");
    let (field, reason) = refused(b"no qcow2", DiskFormat::Qcow2).await;
    assert!(field == "spec.disk_format" && reason.contains("not what it claims"), "{field}: {reason}");
}

#[tokio::test]
async fn a_file_is_hashed_once_for_all_clouds() {
    let content = bytes(3 * MIB);
    let place = Place::with(&content);
    let (one, one_ticket) = place.open(DiskFormat::Auto).await.unwrap().into_stream();
    let (two, two_ticket) = place.open(DiskFormat::Auto).await.unwrap().into_stream();
    assert_eq!(collect(two).await.0, content);
    assert_eq!(collect(one).await.0, content);
    let digest = one_ticket.finish().await.unwrap();
    assert_eq!(two_ticket.finish().await.unwrap(), digest);
    assert_eq!(digest.sha512, sha(&content).1);
    // Known now, so a stream that nobody reads to its end is not needed.
    assert_eq!(place.open(DiskFormat::Auto).await.unwrap().digest(HashAlgo::Sha512).await.unwrap(), digest.sha512);
    assert_eq!(place.open(DiskFormat::Auto).await.unwrap().digest(HashAlgo::Sha256).await.unwrap(), sha(&content).0);
}

#[tokio::test]
async fn a_waiter_computes_when_the_other_transfer_fails() {
    let content = bytes(3 * MIB);
    let place = Place::with(&content);
    let (one, one_ticket) = place.open(DiskFormat::Auto).await.unwrap().into_stream();
    let (two, two_ticket) = place.open(DiskFormat::Auto).await.unwrap().into_stream();
    assert_eq!(collect(two).await.0, content);
    let two = tokio::spawn(two_ticket.finish());
    drop(one);
    assert!(matches!(one_ticket.finish().await, Err(SourceError::Transient { .. })));
    assert_eq!(two.await.unwrap().unwrap().sha512, sha(&content).1);
}

#[tokio::test]
async fn a_file_that_changes_never_comes_whole() {
    let replace = |place: &Place| {
        fs::write(place.path.with_extension("new"), bytes(8 * MIB)).unwrap();
        fs::rename(place.path.with_extension("new"), &place.path).unwrap();
    };
    let open = |place: &Place| fs::OpenOptions::new().write(true).open(&place.path).unwrap();
    let truncate = |place: &Place| open(place).set_len(4 * 1024 * 1024).unwrap();
    let grow = |place: &Place| open(place).set_len(9 * 1024 * 1024).unwrap();
    let write = |place: &Place| open(place).write_all_at(b"x", 100).unwrap();
    type Change<'a> = &'a dyn Fn(&Place);
    let ways: [(_, Change<'_>); 4] =
        [("replaced", &replace), ("truncated", &truncate), ("grown", &grow), ("written", &write)];
    for (way, change) in ways {
        let place = Place::with(&bytes(8 * MIB));
        let (stream, ticket) = place.open(DiskFormat::Auto).await.unwrap().into_stream();
        let mut stream = Box::pin(stream);
        let first = stream.next().await.unwrap().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(&place);
        let (rest, error) = collect(stream).await;
        assert!(error.is_some() && first.len() + rest.len() < 8 * MIB, "{way}");
        assert!(matches!(ticket.finish().await, Err(SourceError::Changed { .. })), "{way}");
    }
}

#[tokio::test]
async fn the_reader_ends_with_the_stream() {
    let place = Place::with(&bytes(16 * MIB));
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks
            .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name == "image-read\n"))
            .count()
    };
    let streams: Vec<_> = futures_util::future::join_all((0..20).map(|_| place.open(DiskFormat::Auto))).await;
    let streams: Vec<_> = streams.into_iter().map(|opened| opened.unwrap().into_stream()).collect();
    // A thread gives itself its name, so it counts a moment late.
    settles(|| threads() >= 20).await;
    drop(streams);
    settles(|| threads() < 20).await;
}

async fn settles(condition: impl Fn() -> bool) {
    for _ in 0..200 {
        if condition() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it never came about");
}

#[tokio::test]
async fn a_stream_is_looked_at_and_comes_whole() {
    let content = bytes(2 * MIB);
    for part in [1000, 64 * 1024, 2 * MIB] {
        let opened = served(2 * MIB as u64, parts(&content, part), None).await;
        assert_eq!(opened.format, DiskFormat::Raw);
        let (stream, ticket) = opened.into_stream();
        assert_eq!(collect(stream).await.0, content);
        assert_eq!(ticket.finish().await.unwrap().sha512, sha(&content).1);
    }
    let told = Some((HashAlgo::Sha512, "ABC".to_owned()));
    let (stream, ticket) = served(2 * MIB as u64, parts(&content, 9999), told).await.into_stream();
    assert_eq!(collect(stream).await.0, content);
    assert_eq!(ticket.finish().await.unwrap().sha512, "abc", "told, so not hashed");
    let told = Some((HashAlgo::Sha256, sha(&content).0));
    let (stream, ticket) = served(2 * MIB as u64, parts(&content, 9999), told).await.into_stream();
    assert_eq!(collect(stream).await.0, content);
    assert_eq!(ticket.finish().await.unwrap(), Digests { sha512: sha(&content).1, sha256: Some(sha(&content).0) });
}

#[tokio::test]
async fn a_stream_of_another_length_is_an_error() {
    let content = bytes(MIB);
    for length in [MIB - 1, MIB + 1, MIB / 2] {
        let (stream, ticket) = served(length as u64, parts(&content, 70_000), None).await.into_stream();
        let (got, error) = collect(stream).await;
        assert!(error.is_some() && got.len() < length);
        assert!(matches!(ticket.finish().await, Err(SourceError::Transient { .. })));
    }
    let short = Opened::from_stream(5000, stream::iter(parts(&content[..4000], 900)), DiskFormat::Auto, None).await;
    assert!(matches!(short, Err(SourceError::Transient { .. })));
    let empty = Opened::from_stream(0, stream::iter(parts(b"", 1)), DiskFormat::Auto, None).await;
    assert!(matches!(empty, Err(SourceError::Refused { field, .. }) if field == "spec.source.image"));
}

#[tokio::test]
async fn what_a_stream_fails_with_is_what_the_ticket_says() {
    let reset = SourceError::Transient { reason: "reset".to_owned(), retry_after: None };
    let mut chunks = parts(&bytes(MIB), 70_000);
    chunks[5] = Err(reset.clone());
    let (stream, ticket) = served(MIB as u64, chunks, None).await.into_stream();
    assert!(collect(stream).await.1.unwrap().to_string().contains("reset"));
    assert_eq!(ticket.finish().await, Err(reset));

    let (stream, ticket) = served(MIB as u64, parts(&bytes(MIB), 70_000), None).await.into_stream();
    assert_eq!(ticket.failure(), None, "it has not ended");
    drop(stream);
    let (stream, ticket) = served(MIB as u64 - 1, parts(&bytes(MIB), 70_000), None).await.into_stream();
    collect(stream).await;
    assert!(ticket.failure().unwrap().to_string().contains("more than"));
}

#[tokio::test]
async fn a_source_that_stalls_is_given_up() {
    let stalling = stream::iter(parts(&bytes(MIB), 70_000)[..3].to_vec()).chain(stream::pending()).boxed();
    let promise = Promise { length: MIB as u64, sha256: None, stall: std::time::Duration::from_secs(1) };
    let (stream, end) = pump::pump(stalling, promise, None, None);
    let (got, error) = collect(stream).await;
    assert_eq!(got.len(), 140_000);
    assert!(error.unwrap().to_string().contains("nothing for 1 s"));
    assert!(matches!(end.await.unwrap(), Err(SourceError::Transient { .. })));
}
