//! From publishing to taking.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;

/// A job arrives as it was published, where it was published, with nothing counted.
pub async fn delivers_what_was_published(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one"]).await;
    let mut consumer = consume(&backend, Tap::New(LANE), 1).await;
    let delivery = take(&mut consumer).await;
    assert_eq!((text(&delivery).as_str(), delivery.from), ("one", Tap::New(LANE)));
    assert_eq!(numbers(&delivery.counts), (0, 0));
    assert_eq!(delivery.counts.last_error, None);
    settle(delivery, Verdict::Done).await;
}

/// First in, first out.
pub async fn one_consumer_sees_the_order(harness: &dyn Harness) {
    let backend = harness.open().await;
    let mut consumer = consume(&backend, Tap::New(LANE), 5).await;
    let payloads: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for payload in &payloads {
        publish(&backend, LANE, &[payload]).await;
    }
    for payload in &payloads {
        let delivery = take(&mut consumer).await;
        assert_eq!(&text(&delivery), payload);
        settle(delivery, Verdict::Done).await;
    }
}

/// Empty, not UTF-8, and as large as a message may be.
pub async fn a_payload_may_be_anything(harness: &dyn Harness) {
    let backend = harness.open().await;
    let mut consumer = consume(&backend, Tap::New(LANE), 1).await;
    let large: Vec<u8> = (0..=u8::MAX).cycle().take(crate::wire::SIZE_MAX).collect();
    for payload in [Vec::new(), vec![0, 0xFF, 0xFE, b'\n'], large] {
        backend.queue.publish(LANE, "id", &payload).await.unwrap();
        let delivery = take(&mut consumer).await;
        assert!(delivery.payload == payload, "{} bytes came back as {}", payload.len(), delivery.payload.len());
        settle(delivery, Verdict::Done).await;
    }
}

/// Kinds and architectures queue up apart.
pub async fn lanes_do_not_mix(harness: &dyn Harness) {
    let backend = harness.open().await;
    for lane in Lane::all() {
        publish(&backend, lane, &[&lane.to_string()]).await;
    }
    for lane in Lane::all() {
        let mut consumer = consume(&backend, Tap::New(lane), 2).await;
        let delivery = take(&mut consumer).await;
        assert_eq!(text(&delivery), lane.to_string());
        nothing_for(&mut consumer, Duration::from_millis(100)).await;
        settle(delivery, Verdict::Done).await;
    }
}

/// Accepted means durable.
pub async fn published_survives_reopening(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one", "two"]).await;
    drop(backend);
    let backend = harness.open().await;
    let mut consumer = consume(&backend, Tap::New(LANE), 2).await;
    let (one, two) = (take(&mut consumer).await, take(&mut consumer).await);
    assert_eq!((text(&one), text(&two)), ("one".to_owned(), "two".to_owned()));
    assert_eq!(numbers(&one.counts), (0, 0));
}

/// No more than `in_flight` are in hand, however much there is.
pub async fn in_flight_is_bounded(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one", "two", "three"]).await;
    let mut consumer = consume(&backend, Tap::New(LANE), 2).await;
    let _in_hand = (take(&mut consumer).await, take(&mut consumer).await);
    nothing(&mut consumer).await;
}

/// Room is made by every verdict, also for somebody who waits already.
pub async fn settling_frees_a_slot(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["one", "two"]).await;
    let mut consumer = consume(&backend, Tap::New(LANE), 1).await;
    let one = take(&mut consumer).await;
    let (two, ()) = tokio::join!(take(&mut consumer), async {
        tokio::task::yield_now().await;
        settle(one, Verdict::Done).await;
    });
    assert_eq!(text(&two), "two");
}

/// Every job goes to exactly one of two processes.
pub async fn two_consumers_share_without_overlap(harness: &dyn Harness) {
    let (left, right) = (harness.open().await, harness.open().await);
    let mut consumers = [consume(&left, Tap::New(LANE), 2).await, consume(&right, Tap::New(LANE), 2).await];
    let payloads: BTreeSet<String> = (0..30).map(|number| number.to_string()).collect();
    for payload in &payloads {
        publish(&left, LANE, &[payload]).await;
    }
    let mut seen = BTreeSet::new();
    let [left_consumer, right_consumer] = &mut consumers;
    while seen.len() < payloads.len() {
        let delivery = tokio::select! {
            delivery = take(left_consumer) => delivery,
            delivery = take(right_consumer) => delivery,
        };
        assert!(seen.insert(text(&delivery)), "{} came twice", text(&delivery));
        settle(delivery, Verdict::Done).await;
    }
    assert_eq!(seen, payloads);
    nothing(&mut consumers[0]).await;
    nothing(&mut consumers[1]).await;
}

/// A loop may leave `next` for something else at any time and loses no job.
pub async fn next_may_be_cancelled(harness: &dyn Harness) {
    let backend = harness.open().await;
    let mut consumer = consume(&backend, Tap::New(LANE), 1).await;
    let mut seen = Vec::new();
    for round in 0..20_u32 {
        publish(&backend, LANE, &[&round.to_string()]).await;
        let mut patience = Duration::ZERO;
        let delivery = loop {
            match tokio::time::timeout(patience, consumer.next()).await {
                Ok(delivery) => break delivery.unwrap(),
                Err(_) => patience += Duration::from_millis(1),
            }
        };
        assert_eq!(numbers(&delivery.counts), (0, 0));
        seen.push(text(&delivery));
        settle(delivery, Verdict::Done).await;
    }
    assert_eq!(seen, (0..20).map(|round| round.to_string()).collect::<Vec<_>>());
    nothing(&mut consumer).await;
}
