//! The log of transitions, and live progress.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::event::{Event, What};
use crate::queue::{About, Reader, Until};

fn event(id: &str, what: What) -> Event {
    Event {
        at: Timestamp::now(),
        id: id.to_owned(),
        parent: None,
        run: 0,
        kind: Some("upload".to_owned()),
        name: Some("image".to_owned()),
        arch: Some("amd64".to_owned()),
        cloud: Some("edge".to_owned()),
        by: "conformance".to_owned(),
        what,
    }
}

async fn append(backend: &Backend, id: &str) {
    backend.log.append(&event(id, What::Queued)).await.unwrap();
}

async fn reader(backend: &Backend, since: Timestamp, until: Until) -> Box<dyn Reader> {
    backend.log.read(since, until).await.unwrap()
}

async fn next(reader: &mut Box<dyn Reader>) -> Option<Event> {
    tokio::time::timeout(SOON, reader.next()).await.unwrap_or_else(|_| panic!("no event within {SOON:?}")).unwrap()
}

async fn ids(backend: &Backend, since: Timestamp) -> Vec<String> {
    let mut reader = reader(backend, since, Until::Now).await;
    let mut ids = Vec::new();
    while let Some(event) = next(&mut reader).await {
        ids.push(event.id);
    }
    ids
}

fn an_hour_ago() -> Timestamp {
    Timestamp::now() - SignedDuration::from_hours(1)
}

fn progress(bytes: u64) -> What {
    What::Progress { bytes, total: 100, rate: 1 }
}

/// Events come back as they were written, in the order of writing.
pub async fn the_log_keeps_its_order(harness: &dyn Harness) {
    let backend = harness.open().await;
    assert_eq!(ids(&backend, an_hour_ago()).await, Vec::<String>::new());
    let written = [
        event("one", What::Started { attempt: 3, alone: false }),
        event("two", What::Succeeded { result: serde_json::json!({ "image_id": "7" }) }),
        event("one", What::Warning { message: "größer".to_owned() }),
    ];
    for event in &written {
        backend.log.append(event).await.unwrap();
    }
    let mut reader = reader(&backend, an_hour_ago(), Until::Now).await;
    for event in &written {
        assert_eq!(next(&mut reader).await.as_ref(), Some(event));
    }
    assert_eq!(next(&mut reader).await, None);
    assert_eq!(next(&mut reader).await, None);
}

/// What was said before `since` is not read.
pub async fn the_log_reads_from_a_time_on(harness: &dyn Harness) {
    let backend = harness.open().await;
    append(&backend, "before").await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let since = Timestamp::now();
    append(&backend, "after").await;
    append(&backend, "later").await;
    assert_eq!(ids(&backend, since).await, ["after", "later"]);
    assert_eq!(ids(&backend, an_hour_ago()).await, ["before", "after", "later"]);
    assert_eq!(ids(&backend, Timestamp::now() + SignedDuration::from_mins(1)).await, Vec::<String>::new());
}

/// Whoever asks about some jobs is told all about them, in order, and about those that name them.
pub async fn the_log_tells_of_some_jobs(harness: &dyn Harness) {
    let backend = harness.open().await;
    let parent = "0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55";
    let child = Event { parent: Some(parent.parse().unwrap()), ..event("child", What::Queued) };
    for number in 0..100 {
        append(&backend, parent).await;
        append(&backend, &format!("stranger {number}")).await;
    }
    backend.log.append(&child).await.unwrap();
    let about = About::Jobs(vec![parent.to_owned()]);
    let mut told = backend.log.read_about(about, an_hour_ago(), Until::Now).await.unwrap();
    for _ in 0..100 {
        assert_eq!(next(&mut told).await.unwrap().id, parent);
    }
    assert_eq!(next(&mut told).await, Some(child));
    assert_eq!(next(&mut told).await, None);
}

/// More than is ever sent ahead is read to the end, and from its end on.
pub async fn a_long_log_is_read_to_its_end(harness: &dyn Harness) {
    const MANY: usize = 6_000;
    let backend = harness.open().await;
    let mut follower = reader(&backend, an_hour_ago(), Until::Ever).await;
    let numbers: Vec<String> = (0..MANY).map(|number| number.to_string()).collect();
    for some in numbers.chunks(500) {
        futures_util::future::join_all(some.iter().map(|id| append(&backend, id))).await;
    }
    let mut read = ids(&backend, an_hour_ago()).await;
    read.sort_unstable_by_key(|id| id.parse::<usize>().unwrap());
    assert_eq!(read, numbers);
    for _ in 0..MANY {
        assert!(next(&mut follower).await.is_some());
    }
    append(&backend, "last").await;
    assert_eq!(next(&mut follower).await.unwrap().id, "last");
}

/// An event that was accepted is there for the next process.
pub async fn the_log_survives_reopening(harness: &dyn Harness) {
    let backend = harness.open().await;
    append(&backend, "one").await;
    drop(backend);
    let backend = harness.open().await;
    append(&backend, "two").await;
    assert_eq!(ids(&backend, an_hour_ago()).await, ["one", "two"]);
}

/// Progress is for those who are there.
pub async fn progress_is_not_kept(harness: &dyn Harness) {
    let backend = harness.open().await;
    let mut there = reader(&backend, an_hour_ago(), Until::Forever).await;
    backend.log.announce(&event("moving", progress(1))).await;
    assert_eq!(next(&mut there).await.unwrap().what, progress(1));
    append(&backend, "one").await;
    assert_eq!(ids(&backend, an_hour_ago()).await, ["one"]);
    let mut late = reader(&backend, an_hour_ago(), Until::Forever).await;
    assert_eq!(next(&mut late).await.unwrap().id, "one");
    append(&backend, "two").await;
    assert_eq!(next(&mut late).await.unwrap().id, "two");
}

/// A follower reads what there was, then what comes, from this process and others, progress included.
pub async fn a_follower_sees_what_comes(harness: &dyn Harness) {
    let (left, right) = (harness.open().await, harness.open().await);
    append(&left, "before").await;
    let mut follower = reader(&left, an_hour_ago(), Until::Forever).await;
    assert_eq!(next(&mut follower).await.unwrap().id, "before");
    let idle = tokio::time::timeout(NEVER, follower.next()).await;
    assert!(idle.is_err(), "{:?}", idle.map(|event| event.map(|event| event.map(|event| event.id))));
    for (backend, id) in [(&left, "here"), (&right, "elsewhere")] {
        append(backend, id).await;
        assert_eq!(next(&mut follower).await.unwrap().id, id);
        backend.log.announce(&event(id, progress(50))).await;
        let told = next(&mut follower).await.unwrap();
        assert_eq!((told.id.as_str(), told.what), (id, progress(50)));
    }
}

/// Whoever attaches before a job is published hears all of it, each once, in each writer's order.
pub async fn a_follower_misses_nothing(harness: &dyn Harness) {
    let (left, right) = (harness.open().await, harness.open().await);
    let mut follower = reader(&left, Timestamp::now(), Until::Forever).await;
    let write = async |backend: &Backend, by: &str| {
        for number in 0..25 {
            append(backend, &format!("{by} {number:02}")).await;
        }
    };
    let read = async {
        let mut seen = Vec::new();
        while seen.len() < 50 {
            seen.push(next(&mut follower).await.unwrap().id);
        }
        seen
    };
    let (seen, (), ()) = tokio::join!(read, write(&left, "left"), write(&right, "right"));
    for by in ["left", "right"] {
        let of: Vec<&String> = seen.iter().filter(|id| id.starts_with(by)).collect();
        assert!(of.len() == 25 && of.is_sorted(), "{of:?}");
    }
    assert_eq!(ids(&right, an_hour_ago()).await.len(), 50);
}
