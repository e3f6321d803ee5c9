//! What becomes of a delivery.

use std::time::{Duration, Instant};

use super::*;
use crate::queue::Burial;

const WAIT: Duration = Duration::from_millis(700);

/// Nobody sees it again, in this process or the next.
pub async fn done_is_final(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut consumer = consume(&backend, Tap::New(LANE), 2).await;
    settle(take(&mut consumer).await, Verdict::Done).await;
    nothing(&mut consumer).await;
    drop((consumer, backend));
    let backend = harness.open().await;
    let mut consumers = [consume(&backend, Tap::New(LANE), 2).await, consume(&backend, Tap::Started(LANE), 2).await];
    nothing(&mut consumers[0]).await;
    nothing(&mut consumers[1]).await;
}

/// Progress: the new payload, and what went wrong before is forgiven.
pub async fn continue_replaces_the_payload_and_counts_afresh(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    settle(take(&mut new).await, Verdict::Retry { after: Duration::ZERO, error: "no".to_owned() }).await;
    let again = take(&mut started).await;
    assert_eq!(again.counts.attempt, 1);
    settle(again, Verdict::Continue { payload: b"two".to_vec(), after: Duration::ZERO }).await;
    let further = take(&mut started).await;
    assert_eq!((text(&further).as_str(), further.from), ("two", Tap::Started(LANE)));
    assert_eq!(numbers(&further.counts), (0, 0));
}

/// A failure waits, counts, and says why.
pub async fn retry_waits_and_counts(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    let delivery = take(&mut new).await;
    let began = Instant::now();
    settle(delivery, Verdict::Retry { after: WAIT, error: "the cloud said no".to_owned() }).await;
    let again = take(&mut started).await;
    assert!(began.elapsed() >= WAIT, "came after {:?}", began.elapsed());
    assert_eq!((text(&again).as_str(), again.counts.attempt), ("one", 1));
    assert_eq!(again.counts.last_error.as_deref(), Some("the cloud said no"));
}

/// A shutdown hands back a job as if nobody had seen it.
pub async fn release_returns_at_once_uncounted(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    for _ in 0..3 {
        settle(take(&mut new).await, Verdict::Release { after: Duration::ZERO }).await;
    }
    let again = take(&mut new).await;
    assert_eq!((text(&again).as_str(), again.from), ("one", Tap::New(LANE)));
    assert_eq!(numbers(&again.counts), (0, 0));
}

/// A job that waits for the cloud has failed at nothing.
pub async fn release_after_a_wait_is_uncounted(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    let delivery = take(&mut new).await;
    let began = Instant::now();
    settle(delivery, Verdict::Release { after: WAIT }).await;
    let again = take(&mut started).await;
    assert!(began.elapsed() >= WAIT, "came after {:?}", began.elapsed());
    assert_eq!((text(&again).as_str(), numbers(&again.counts)), ("one", (0, 0)));
}

/// Work begun never waits behind a backlog.
pub async fn new_and_started_are_separate(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one", "two"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    settle(take(&mut new).await, Verdict::Continue { payload: b"begun".to_vec(), after: Duration::ZERO }).await;
    let two = take(&mut new).await;
    assert_eq!(text(&two), "two");
    let mut started = consume(&backend, Tap::Started(LANE), 2).await;
    let begun = take(&mut started).await;
    assert_eq!(text(&begun), "begun");
    nothing(&mut started).await;
    settle(two, Verdict::Done).await;
    nothing(&mut new).await;
}

/// Several jobs that wait, a short wait behind a longer one: neither is early.
pub async fn a_wait_is_never_cut_short(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["long", "short"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 2).await;
    let mut started = consume(&backend, Tap::Started(LANE), 2).await;
    let (long, short) = (take(&mut new).await, take(&mut new).await);
    let waits = [("long", Duration::from_millis(1000)), ("short", Duration::from_millis(400))];
    let began = Instant::now();
    settle(long, Verdict::Release { after: waits[0].1 }).await;
    settle(short, Verdict::Retry { after: waits[1].1, error: "no".to_owned() }).await;
    for _ in 0..2 {
        let delivery = take(&mut started).await;
        let wait = waits.iter().find(|(name, _)| *name == text(&delivery)).map(|(_, wait)| *wait).unwrap();
        assert!(began.elapsed() >= wait, "{} came after {:?}", text(&delivery), began.elapsed());
    }
}

/// Nobody has to be there while a job waits.
pub async fn a_wait_survives_reopening(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let delivery = take(&mut new).await;
    let began = Instant::now();
    settle(delivery, Verdict::Continue { payload: b"two".to_vec(), after: WAIT }).await;
    drop((new, backend));
    let backend = harness.open().await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    let again = take(&mut started).await;
    assert!(began.elapsed() >= WAIT, "came after {:?}", began.elapsed());
    assert_eq!((text(&again).as_str(), numbers(&again.counts)), ("two", (0, 0)));
}

/// Each verdict leaves exactly as many copies as it says: dead ones none, living ones one.
pub async fn a_settled_job_has_no_second_copy(harness: &dyn Harness) {
    let backend = harness.open().await;
    let verdicts = [
        Verdict::Done,
        Verdict::Bury(Burial::default()),
        Verdict::Continue { payload: b"continued".to_vec(), after: Duration::ZERO },
        Verdict::Retry { after: Duration::ZERO, error: String::new() },
    ];
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    for verdict in verdicts {
        publish(&backend, LANE, &["job"]).await;
        settle(take(&mut new).await, verdict).await;
    }
    drop(new);
    let mut new = consume(&backend, Tap::New(LANE), 9).await;
    let mut started = consume(&backend, Tap::Started(LANE), 9).await;
    let in_hand = [take(&mut started).await, take(&mut started).await];
    let mut back: Vec<String> = in_hand.iter().map(text).collect();
    back.sort();
    assert_eq!(back, ["continued", "job"]);
    nothing(&mut new).await;
    nothing(&mut started).await;
}

/// A job that finds no room was not begun: it lines up again where it was, and nothing is counted.
pub async fn defer_keeps_the_place(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    let began = Instant::now();
    settle(take(&mut new).await, Verdict::Defer { after: WAIT }).await;
    let again = take(&mut new).await;
    assert!(began.elapsed() >= WAIT, "came after {:?}", began.elapsed());
    assert_eq!((text(&again).as_str(), again.from, numbers(&again.counts)), ("one", Tap::New(LANE), (0, 0)));
    settle(again, Verdict::Retry { after: Duration::ZERO, error: "no".to_owned() }).await;
    settle(take(&mut started).await, Verdict::Defer { after: Duration::from_millis(10) }).await;
    let begun = take(&mut started).await;
    assert_eq!((begun.from, numbers(&begun.counts)), (Tap::Started(LANE), (1, 0)));
}

/// A job that is put back while its step goes on says so to whoever takes it next, until somebody knows better.
pub async fn detached_is_told(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    let mut delivery = take(&mut new).await;
    assert!(!delivery.counts.detached);
    delivery.counts.detached = true;
    settle(delivery, Verdict::Release { after: Duration::from_millis(10) }).await;
    let mut again = take(&mut started).await;
    assert!(again.counts.detached);
    again.counts.detached = false;
    settle(again, Verdict::Release { after: Duration::from_millis(10) }).await;
    assert!(!take(&mut started).await.counts.detached);
}

/// To where it belongs, at once, with all that was counted about it.
pub async fn what_is_moved_keeps_its_counts(harness: &dyn Harness) {
    let backend = harness.open().await;
    let other = Lane { kind: Kind::Prune, arch: None };
    publish(&backend, other, &["one"]).await;
    let mut wrong = consume(&backend, Tap::New(other), 1).await;
    let mut found = take(&mut wrong).await;
    (found.counts.attempt, found.counts.crashes) = (4, 2);
    settle(found, Verdict::Move { to: Tap::Started(LANE) }).await;
    let mut right = consume(&backend, Tap::Started(LANE), 1).await;
    let moved = take(&mut right).await;
    assert_eq!((text(&moved).as_str(), numbers(&moved.counts)), ("one", (4, 2)));
    nothing(&mut wrong).await;
}
