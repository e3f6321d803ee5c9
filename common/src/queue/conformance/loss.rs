//! Those who take a job and do not settle it.

use super::*;
use crate::queue::{Burial, QueueError};

/// Longer than any lease.
const LONG: Duration = Duration::from_secs(7);

/// A consumer that goes leaves its job to the next, which is told.
pub async fn a_lost_consumer_means_counted_redelivery(harness: &dyn Harness) {
    let (left, right) = (harness.open().await, harness.open().await);
    publish(&left, LANE, &["one"]).await;
    let mut dying = consume(&left, Tap::New(LANE), 1).await;
    let in_hand = take(&mut dying).await;
    let mut heir = consume(&right, Tap::New(LANE), 1).await;
    drop((dying, left, in_hand));
    let again = take(&mut heir).await;
    assert_eq!((text(&again).as_str(), numbers(&again.counts)), ("one", (0, 1)));
}

/// What was given to somebody else is not ours to settle, with any verdict.
pub async fn a_lost_consumer_cannot_settle_late(harness: &dyn Harness) {
    let backend = harness.open().await;
    let verdicts = [
        Verdict::Done,
        Verdict::Release { after: Duration::ZERO },
        Verdict::Continue { payload: b"stale".to_vec(), after: Duration::ZERO },
        Verdict::Bury(Burial::default()),
    ];
    for verdict in verdicts {
        publish(&backend, LANE, &["one"]).await;
        let mut dying = consume(&backend, Tap::New(LANE), 1).await;
        let late = take(&mut dying).await;
        drop(dying);
        let mut heir = consume(&backend, Tap::New(LANE), 1).await;
        let again = take(&mut heir).await;
        let refused = late.settle(verdict.clone()).await;
        assert!(matches!(refused, Err(QueueError::Stale)), "{verdict:?}: {refused:?}");
        // A broker may send it to a consumer that is just closing once more; that counts too.
        assert_eq!(text(&again), "one");
        assert!(again.counts.crashes >= 1, "{:?}", again.counts);
        settle(again, Verdict::Done).await;
        nothing(&mut heir).await;
    }
    assert_eq!(backend.desk.dead().await.unwrap(), []);
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    nothing(&mut started).await;
}

/// A delivery that nobody settled, for a panic or an early return, does not hang on a consumer that lives on.
pub async fn a_dropped_delivery_comes_back_counted(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut consumer = consume(&backend, Tap::New(LANE), 1).await;
    drop(take(&mut consumer).await);
    let again = take(&mut consumer).await;
    assert_eq!((text(&again).as_str(), numbers(&again.counts)), ("one", (0, 1)));
    settle(again, Verdict::Done).await;
    nothing(&mut consumer).await;
}

/// A job in hand stays in hand as long as its process lives.
pub async fn long_work_is_not_redelivered(harness: &dyn Harness) {
    let (left, right) = (harness.open().await, harness.open().await);
    publish(&left, LANE, &["one"]).await;
    let mut working = consume(&left, Tap::New(LANE), 1).await;
    let in_hand = take(&mut working).await;
    let mut idle = consume(&right, Tap::New(LANE), 1).await;
    nothing_for(&mut idle, LONG).await;
    settle(in_hand, Verdict::Done).await;
    nothing(&mut idle).await;
}

/// What was sent ahead to a consumer that takes no more goes to others, as if nobody had seen it.
pub async fn stop_hands_back_what_was_sent_ahead(harness: &dyn Harness) {
    let backend = harness.open().await;
    let mut stopping = consume(&backend, Tap::New(LANE), 8).await;
    publish(&backend, LANE, &["one", "two", "three", "four"]).await;
    let one = take(&mut stopping).await;
    stopping.stop().await.unwrap();
    let mut other = consume(&backend, Tap::New(LANE), 8).await;
    let mut back = Vec::new();
    for _ in 0..3 {
        let delivery = take(&mut other).await;
        assert_eq!(numbers(&delivery.counts), (0, 0), "{}", text(&delivery));
        back.push(text(&delivery));
        settle(delivery, Verdict::Done).await;
    }
    back.sort();
    assert_eq!(back, ["four", "three", "two"]);
    settle(one, Verdict::Done).await;
    nothing(&mut other).await;
}

/// Stopping is not dropping: a shutdown finishes what it has begun.
pub async fn stop_lets_what_is_in_hand_settle(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one", "two"]).await;
    let mut stopping = consume(&backend, Tap::New(LANE), 2).await;
    let (one, two) = (take(&mut stopping).await, take(&mut stopping).await);
    stopping.stop().await.unwrap();
    publish(&backend, LANE, &["three"]).await;
    settle(one, Verdict::Continue { payload: b"begun".to_vec(), after: Duration::ZERO }).await;
    settle(two, Verdict::Done).await;
    let mut new = consume(&backend, Tap::New(LANE), 2).await;
    let three = take(&mut new).await;
    assert_eq!(text(&three), "three");
    let mut started = consume(&backend, Tap::Started(LANE), 2).await;
    let begun = take(&mut started).await;
    assert_eq!(text(&begun), "begun");
    nothing(&mut started).await;
    nothing(&mut new).await;
}

/// A job that takes every process with it ends up where it can be reported.
pub async fn what_crashes_too_often_is_lost(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["poison", "innocent"]).await;
    let mut lost = consume(&backend, Tap::Lost, 1).await;
    let mut rounds = 0;
    let found = loop {
        let mut dying = consume(&backend, Tap::New(LANE), 1).await;
        let in_hand = tokio::select! {
            biased;
            found = take(&mut lost) => break found,
            in_hand = take(&mut dying) => in_hand,
        };
        if text(&in_hand) == "innocent" {
            settle(in_hand, Verdict::Done).await;
            continue;
        }
        rounds += 1;
        assert!(rounds <= 30, "never lost");
    };
    assert!((19..=22).contains(&rounds), "lost after {rounds} rounds");
    assert_eq!((text(&found).as_str(), found.from), ("poison", Tap::Lost));
    assert!(found.counts.crashes >= 20, "{:?}", found.counts);
    settle(found, Verdict::Bury(Burial { reason: "crashes workers".to_owned(), ..Burial::default() })).await;
    nothing(&mut lost).await;
    assert_eq!(backend.desk.dead().await.unwrap().len(), 1);
}
