//! What can happen to a file that several processes share: they die, stop, or find it locked, damaged or not theirs.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod child;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use child::{Child, LANE, file, open, publish, take, try_open};
use imagewright_common::queue::{QueueError, Tap, Verdict};
use rustix::process::Signal;
use tempfile::TempDir;

/// The lease of five seconds, and the time to notice that it ran out on a loaded machine.
const LAPSE_MAX: Duration = Duration::from_secs(10);

fn refusal(opened: Result<imagewright_common::queue::Backend, QueueError>) -> String {
    match opened {
        Err(QueueError::Refused(text)) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("was opened"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_its_job_when_its_lease_is_over() {
    let directory = TempDir::new().unwrap();
    let backend = open(&directory).await;
    let mut heir = backend.queue.consume(Tap::Started(LANE), 1).await.unwrap();
    let mut child = Child::start(&directory, "hold");
    publish(&backend, "one").await;
    assert_eq!(child.says().await, "holds one, lost 0 times");

    child.signal(Signal::KILL);
    let killed = Instant::now();
    let mut new = backend.queue.consume(Tap::New(LANE), 1).await.unwrap();
    let again = take(&mut new).await;
    assert!(killed.elapsed() <= LAPSE_MAX, "{:?}", killed.elapsed());
    assert_eq!((again.payload.as_slice(), again.counts.crashes), (b"one".as_slice(), 1));
    again.settle(Verdict::Done).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), heir.next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_process_is_told_that_it_was_too_late_and_goes_on() {
    let directory = TempDir::new().unwrap();
    let backend = open(&directory).await;
    let mut child = Child::start(&directory, "hold");
    publish(&backend, "one").await;
    assert_eq!(child.says().await, "holds one, lost 0 times");

    child.signal(Signal::STOP);
    let mut new = backend.queue.consume(Tap::New(LANE), 1).await.unwrap();
    let again = take(&mut new).await;
    assert_eq!(again.counts.crashes, 1);
    child.signal(Signal::CONT);
    child.hear("settle").await;
    assert_eq!(child.says().await, "Err(Stale)");
    again.settle(Verdict::Done).await.unwrap();

    new.stop().await.unwrap();
    publish(&backend, "two").await;
    assert_eq!(child.says().await, "holds two, lost 0 times");
    child.hear("settle").await;
    assert_eq!(child.says().await, "Ok(())");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_processes_make_and_share_one_file() {
    let directory = TempDir::new().unwrap();
    let mut children: Vec<Child> = (0..4).map(|_| Child::start(&directory, "take")).collect();
    let backend = open(&directory).await;
    for number in 0..40 {
        publish(&backend, &format!("{number:02}")).await;
    }
    for _ in &children {
        publish(&backend, "end").await;
    }
    let mut seen = Vec::new();
    for child in &mut children {
        loop {
            match child.says().await.as_str() {
                "end" => break,
                job => seen.push(job.to_owned()),
            }
        }
    }
    seen.sort();
    assert_eq!(seen, (0..40).map(|number| format!("{number:02}")).collect::<Vec<_>>());
}

/// Nobody can renew while somebody else keeps the file locked; whoever comes first afterwards must not rob the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_file_delays_everything_and_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let (left, right) = (open(&directory).await, open(&directory).await);
    publish(&left, "one").await;
    let mut working = left.queue.consume(Tap::New(LANE), 1).await.unwrap();
    let in_hand = take(&mut working).await;
    let mut idle = right.queue.consume(Tap::New(LANE), 1).await.unwrap();

    let lock = rusqlite::Connection::open(file(&directory)).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (settled, early) = tokio::join!(
        async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            in_hand.settle(Verdict::Continue { payload: b"two".to_vec(), after: Duration::ZERO }).await
        },
        async {
            let early = tokio::time::timeout(Duration::from_secs(7), idle.next()).await;
            lock.execute_batch("ROLLBACK").unwrap();
            early.is_ok()
        }
    );
    settled.unwrap();
    assert!(!early);
    let mut started = right.queue.consume(Tap::Started(LANE), 1).await.unwrap();
    let further = take(&mut started).await;
    assert_eq!((further.payload.as_slice(), further.counts.crashes), (b"two".as_slice(), 0));
    assert!(tokio::time::timeout(Duration::from_secs(1), idle.next()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reboot_ends_waits_and_leases_whatever_the_clocks_say() {
    let directory = TempDir::new().unwrap();
    let backend = open(&directory).await;
    publish(&backend, "waits").await;
    publish(&backend, "held").await;
    let mut new = backend.queue.consume(Tap::New(LANE), 2).await.unwrap();
    let hour = Duration::from_secs(3600);
    take(&mut new).await.settle(Verdict::Retry { after: hour, error: "no".to_owned() }).await.unwrap();
    let _held = take(&mut new).await;

    let other = rusqlite::Connection::open(file(&directory)).unwrap();
    let due_ns: i64 =
        other.query_row("SELECT due_ns FROM jobs WHERE due_ns IS NOT NULL", [], |row| row.get(0)).unwrap();
    let boottime = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ahead = due_ns / 1_000_000_000 - boottime.tv_sec;
    assert!((3590..=3600).contains(&ahead), "waits are measured since boot: {ahead} s ahead");

    other
        .execute_batch("UPDATE jobs SET due_boot = 'b' WHERE due_boot IS NOT NULL; UPDATE subscriptions SET boot = 'b'")
        .unwrap();
    let after = open(&directory).await;
    let mut started = after.queue.consume(Tap::Started(LANE), 1).await.unwrap();
    let waited = take(&mut started).await;
    assert_eq!((waited.payload.as_slice(), waited.counts.attempt, waited.counts.crashes), (b"waits".as_slice(), 1, 0));
    let mut new = after.queue.consume(Tap::New(LANE), 1).await.unwrap();
    let held = take(&mut new).await;
    assert_eq!((held.payload.as_slice(), held.counts.crashes), (b"held".as_slice(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_share_a_file_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let (ours, theirs) = (open(&directory).await, child::open_as(&directory, "theirs").await);
    publish(&ours, "one").await;
    let mut new = theirs.queue.consume(Tap::New(LANE), 1).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), new.next()).await.is_err());
    let depths = theirs.desk.depths().await.unwrap();
    assert!(depths.iter().all(|row| row.ready == 0 && row.queue.starts_with("theirs.")), "{depths:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_and_its_directory_are_private() {
    let directory = TempDir::new().unwrap();
    let backend = open(&directory).await;
    publish(&backend, "one").await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(file(&directory).parent().unwrap()), 0o700);
    for name in ["queue.db", "queue.db-wal", "queue.db-shm"] {
        assert_eq!(mode(&file(&directory).with_file_name(name)), 0o600, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_written_is_refused() {
    let directory = TempDir::new().unwrap();
    drop(open(&directory).await);
    child::wait_until_closed(&directory).await;
    for (file_mode, directory_mode) in [(0o444, 0o755), (0o666, 0o555), (0o000, 0o755), (0o666, 0o000)] {
        let (queue, parent) = (file(&directory), file(&directory).parent().unwrap().to_owned());
        std::fs::set_permissions(&queue, PermissionsExt::from_mode(file_mode)).unwrap();
        std::fs::set_permissions(&parent, PermissionsExt::from_mode(directory_mode)).unwrap();
        let said = Child::start_without_rights(&directory, "open").says().await;
        std::fs::set_permissions(&parent, PermissionsExt::from_mode(0o755)).unwrap();
        let names_the_way_out = said.contains("permission") || said.contains("Permission");
        assert!(said.starts_with("queue refused") && said.contains("queue.db") && names_the_way_out, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_a_later_version_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    drop(open(&directory).await);
    child::wait_until_closed(&directory).await;
    rusqlite::Connection::open(file(&directory)).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let before = std::fs::read(file(&directory)).unwrap();
    let text = refusal(try_open(&directory).await);
    assert!(text.contains("queue.db") && text.contains("99") && text.contains("upgrade"), "{text}");
    assert!(std::fs::read(file(&directory)).unwrap() == before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_queue_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(file(&directory).parent().unwrap()).unwrap();
    std::fs::write(file(&directory), "notes of mine, ".repeat(100)).unwrap();
    let text = refusal(try_open(&directory).await);
    assert!(text.contains("queue.db") && text.contains("name another file"), "{text}");
    assert!(std::fs::read(file(&directory)).unwrap().starts_with(b"notes"));

    std::fs::remove_file(file(&directory)).unwrap();
    rusqlite::Connection::open(file(&directory)).unwrap().execute_batch("CREATE TABLE photos (id)").unwrap();
    let text = refusal(try_open(&directory).await);
    assert!(text.contains("another program"), "{text}");
}

/// Whatever is broken, it is said, and nothing panics.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused() {
    let directory = TempDir::new().unwrap();
    let backend = open(&directory).await;
    for number in 0..50 {
        publish(&backend, &format!("{number} {}", "x".repeat(2000))).await;
    }
    drop(backend);
    child::wait_until_closed(&directory).await;
    let whole = std::fs::read(file(&directory)).unwrap();
    let mut said = Vec::new();
    for page in 1..12 {
        let mut broken = whole.clone();
        broken[page * 4096..(page + 1) * 4096].fill(0xA5);
        std::fs::write(file(&directory), broken).unwrap();
        if let Err(error) = use_all(&directory).await {
            assert!(matches!(&error, QueueError::Refused(text) if text.contains("queue.db")), "{error}");
            said.push(error.to_string());
        }
        child::wait_until_closed(&directory).await;
    }
    assert!(said.iter().any(|text| text.contains("damaged")), "{said:?}");
}

async fn use_all(directory: &TempDir) -> Result<(), QueueError> {
    let backend = try_open(directory).await?;
    backend.queue.publish(LANE, "id", b"{}").await?;
    backend.desk.depths().await?;
    backend.desk.dead().await?;
    let mut consumer = backend.queue.consume(Tap::New(LANE), 99).await?;
    for _ in 0..51 {
        let next = tokio::time::timeout(Duration::from_secs(1), consumer.next()).await;
        let Ok(delivery) = next else { return Ok(()) };
        delivery?.settle(Verdict::Done).await?;
    }
    Ok(())
}

/// Not a test: what a [`Child`] does.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the others, as a process of its own"]
async fn be_a_child() {
    child::be_a_child().await;
}
