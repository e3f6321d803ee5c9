//! What only this backend can be asked.

use std::time::{Duration, Instant};

use futures_util::future::poll_immediate;
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

use super::*;
use crate::arch::Arch;
use crate::job::{Kind, Lane};
use crate::queue::{Consumer, Delivery, Log, Queue, Tap, Until, Verdict};

const LANE: Lane = Lane { kind: Kind::Upload, arch: Some(Arch::S390x) };

const SOON: Duration = Duration::from_secs(20);

async fn store(directory: &TempDir) -> Handle {
    let path = directory.path().join("queue.db");
    Handle(tokio::task::spawn_blocking(move || Store::open(path, "test".to_owned())).await.unwrap().unwrap())
}

async fn take(consumer: &mut Box<dyn Consumer>) -> Delivery {
    tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap()
}

/// Sets how many pages the file may have, as far as the two connections that write are concerned.
async fn limit(handle: &Handle, pages: u32) {
    let set =
        move |tx: &rusqlite::Transaction<'_>| tx.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()));
    handle.0.writer.write(set).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_said_and_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let handle = store(&directory).await;
    handle.publish(LANE, "one", b"one").await.unwrap();
    let mut new = handle.consume(Tap::New(LANE), 1).await.unwrap();
    let in_hand = take(&mut new).await;
    limit(&handle, 1).await;

    let large = vec![b'x'; 100_000];
    let refused = handle.publish(LANE, "two", &large).await.unwrap_err();
    assert!(
        matches!(&refused, QueueError::Unavailable(text) if text.contains("queue.db") && text.contains("full")),
        "{refused}"
    );
    let refused = in_hand.settle(Verdict::Continue { payload: large, after: Duration::ZERO }).await.unwrap_err();
    assert!(matches!(refused, QueueError::Unavailable(_)), "{refused}");
    let again = take(&mut new).await;
    assert_eq!((again.payload.as_slice(), again.counts.crashes), (b"one".as_slice(), 1));

    limit(&handle, u32::MAX).await;
    handle.publish(LANE, "three", b"three").await.unwrap();
    again.settle(Verdict::Done).await.unwrap();
    assert_eq!(take(&mut new).await.payload, b"three");
}

/// Gives the table of subscriptions another name, so that nobody can renew a lease.
async fn rename(handle: &Handle, from: &'static str, to: &'static str) {
    let change = move |tx: &rusqlite::Transaction<'_>| tx.execute(&format!("ALTER TABLE {from} RENAME TO {to}"), []);
    handle.0.writer.write(change).await.unwrap();
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_down_until_it_can() {
    let directory = TempDir::new().unwrap();
    let handle = store(&directory).await;
    let mut up = handle.0.up.subscribe();
    let _new = handle.consume(Tap::New(LANE), 1).await.unwrap();
    assert!(*up.borrow());
    rename(&handle, "subscriptions", "elsewhere").await;
    tokio::time::timeout(SOON, up.wait_for(|up| !up)).await.unwrap().unwrap();
    rename(&handle, "elsewhere", "subscriptions").await;
    tokio::time::timeout(SOON, up.wait_for(|up| *up)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_delivery_dropped_in_hand_comes_back_counted() {
    let directory = TempDir::new().unwrap();
    let handle = store(&directory).await;
    handle.publish(LANE, "one", b"one").await.unwrap();
    let mut new = handle.consume(Tap::New(LANE), 1).await.unwrap();
    drop(take(&mut new).await);
    let again = take(&mut new).await;
    assert_eq!(again.counts.crashes, 1);
    again.settle(Verdict::Done).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(200), new.next()).await.is_err());
}

/// A consumer with a job on its way to it that left before it came.
async fn leave_with_a_job_ahead(handle: &Handle) -> Box<dyn Consumer> {
    let mut absent = handle.consume(Tap::New(LANE), 1).await.unwrap();
    let seat = handle.0.seats().remove(0);
    let mut wish = absent.next();
    assert!(poll_immediate(&mut wish).await.is_none());
    handle.publish(LANE, "one", b"one").await.unwrap();
    while !seat.has_ahead() {
        tokio::task::yield_now().await;
    }
    drop(wish);
    absent
}

#[tokio::test]
async fn what_is_claimed_for_somebody_who_left_goes_to_others() {
    for stops in [false, true] {
        let directory = TempDir::new().unwrap();
        let handle = store(&directory).await;
        let mut absent = leave_with_a_job_ahead(&handle).await;
        if stops {
            absent.stop().await.unwrap();
        }
        let mut present = handle.consume(Tap::New(LANE), 1).await.unwrap();
        let delivery = take(&mut present).await;
        assert_eq!((delivery.payload.as_slice(), delivery.counts.crashes), (b"one".as_slice(), 0));
    }
}

#[tokio::test]
async fn a_clock_set_back_hides_old_events_from_later_readers_and_none_from_followers() {
    let directory = TempDir::new().unwrap();
    let handle = store(&directory).await;
    let since = Timestamp::now();
    let mut follower = handle.read(since, Until::Forever).await.unwrap();
    let ahead = since + SignedDuration::from_mins(1);
    for (id, at) in [("first", ahead), ("set back", since - SignedDuration::from_hours(1)), ("last", ahead)] {
        let message = serde_json::json!({ "at": at, "id": id, "by": "test", "event": "queued" });
        handle.append(&serde_json::from_value(message).unwrap()).await.unwrap();
        assert_eq!(follower.next().await.unwrap().unwrap().id, id);
    }
    let mut reader = handle.read(since, Until::Now).await.unwrap();
    for id in ["first", "last"] {
        assert_eq!(reader.next().await.unwrap().unwrap().id, id);
    }
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test]
async fn threads_end_with_the_queue() {
    let directory = TempDir::new().unwrap();
    let handle = store(&directory).await;
    let mut new = handle.consume(Tap::New(LANE), 1).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(50), new.next()).await.is_err());
    let weak = Arc::downgrade(&handle.0);
    drop((handle, new));
    let began = Instant::now();
    while weak.strong_count() > 0 {
        assert!(began.elapsed() < SOON, "{} references are left", weak.strong_count());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
