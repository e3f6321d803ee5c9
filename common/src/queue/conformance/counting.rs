//! What is counted about a job, and what is not.

use std::time::Duration;

use super::*;
use crate::queue::Burial;

fn retry(error: &str) -> Verdict {
    Verdict::Retry { after: Duration::ZERO, error: error.to_owned() }
}

/// Every failure counts; the last one is told.
pub async fn retries_add_up(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    settle(take(&mut new).await, retry("first")).await;
    for (attempt, error) in [(1, "second"), (2, "third"), (3, "fourth")] {
        let delivery = take(&mut started).await;
        assert_eq!(delivery.counts.attempt, attempt);
        settle(delivery, retry(error)).await;
    }
    let last = take(&mut started).await;
    assert_eq!((last.counts.attempt, last.counts.last_error.as_deref()), (4, Some("fourth")));
}

/// A process that dies with the job in hand is counted, until the job gets on.
pub async fn crashes_add_up_until_progress(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    for crashes in 0..4 {
        let mut new = consume(&backend, Tap::New(LANE), 1).await;
        let in_hand = take(&mut new).await;
        assert_eq!(numbers(&in_hand.counts), (0, crashes));
    }
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    settle(take(&mut new).await, Verdict::Continue { payload: b"two".to_vec(), after: Duration::ZERO }).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    assert_eq!(numbers(&take(&mut started).await.counts), (0, 0));
}

/// Handing back forgives nothing.
pub async fn release_keeps_the_counts(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    settle(take(&mut new).await, retry("no")).await;
    for crashes in 0..2 {
        let mut started = consume(&backend, Tap::Started(LANE), 1).await;
        let in_hand = take(&mut started).await;
        assert_eq!(numbers(&in_hand.counts), (1, crashes));
    }
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    for after in [Duration::ZERO, Duration::from_millis(10)] {
        settle(take(&mut started).await, Verdict::Release { after }).await;
    }
    let again = take(&mut started).await;
    assert_eq!((numbers(&again.counts), again.counts.last_error.as_deref()), ((1, 2), Some("no")));
}

/// Whether it is new or has come back, a job can be buried; it leaves its lane.
pub async fn bury_from_any_tap(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["new", "started"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    let burial = |reason: &str| Verdict::Bury(Burial { reason: reason.to_owned(), ..Burial::default() });
    settle(take(&mut new).await, burial("first")).await;
    settle(take(&mut new).await, retry("no")).await;
    settle(take(&mut started).await, burial("second")).await;
    nothing(&mut new).await;
    nothing(&mut started).await;
    let dead = backend.desk.dead().await.unwrap();
    let told: Vec<_> =
        dead.iter().map(|dead| (dead.payload.as_slice(), dead.burial.reason.as_str(), dead.attempts)).collect();
    assert_eq!(told, [(b"new".as_slice(), "first", 0), (b"started".as_slice(), "second", 1)]);
}
