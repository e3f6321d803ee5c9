use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;

fn key() -> Key {
    let path = std::env::current_exe().unwrap();
    Key { identity: Identity::from(&std::fs::metadata(path).unwrap()), algo: HashAlgo::Sha512 }
}

#[track_caller]
fn compute(claim: Claim) -> Guard {
    match claim {
        Claim::Compute(guard) => guard,
        Claim::Known(_) | Claim::Wait(_) => panic!("not mine to compute"),
    }
}

#[track_caller]
fn wait(claim: Claim) -> Waiter {
    match claim {
        Claim::Wait(waiter) => waiter,
        Claim::Known(_) | Claim::Compute(_) => panic!("nobody to wait for"),
    }
}

fn known(claim: Claim) -> Option<String> {
    match claim {
        Claim::Known(digest) => Some(digest),
        Claim::Wait(_) | Claim::Compute(_) => None,
    }
}

#[tokio::test]
async fn the_hash_thread_gives_what_was_asked() {
    let hasher = Hasher::start(&[HashAlgo::Sha256, HashAlgo::Sha512], None).unwrap();
    for part in ["a", "b", "c"] {
        hasher.feed.send(Feed::Chunk(part.into())).await.ok().unwrap();
    }
    hasher.feed.send(Feed::End).await.ok().unwrap();
    let sums = hasher.sums.await.unwrap();
    // FIPS 180-4, example "abc".
    assert_eq!(sums.sha256.unwrap(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert!(sums.sha512.unwrap().starts_with("ddaf35a193617abacc417349ae204131"));

    let hasher = Hasher::start(&[HashAlgo::Sha256], None).unwrap();
    hasher.feed.send(Feed::End).await.ok().unwrap();
    assert_eq!(hasher.sums.await.unwrap().sha512, None);
}

#[tokio::test]
async fn a_feed_that_stops_early_gives_no_digest() {
    let cache = DigestCache::default();
    let guard = compute(cache.claim(key()));
    let mut waiter = wait(cache.claim(key()));
    let hasher = Hasher::start(&[HashAlgo::Sha512], Some(guard)).unwrap();
    hasher.feed.send(Feed::Chunk("half".into())).await.ok().unwrap();
    drop(hasher.feed);
    assert!(hasher.sums.await.is_err());
    assert_eq!(waiter.wait().await, None);
    compute(cache.claim(key()));
}

#[tokio::test]
async fn one_computes_and_the_others_wait() {
    let cache = DigestCache::default();
    let guard = compute(cache.claim(key()));
    let waiters: Vec<_> = (0..8).map(|_| wait(cache.claim(key()))).collect();
    let waiting = waiters.into_iter().map(|mut waiter| tokio::spawn(async move { waiter.wait().await }));
    let waiting: Vec<_> = waiting.collect();
    guard.tell("d1");
    for task in waiting {
        assert_eq!(task.await.unwrap().as_deref(), Some("d1"));
    }
    assert_eq!(known(cache.claim(key())).as_deref(), Some("d1"));
    cache.forget(key());
    compute(cache.claim(key()));
}

/// Every computation but the last fails: each failure sets exactly one waiter to work.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn waiters_fall_back_to_computing() {
    const TASKS: usize = 16;
    let (cache, begun, running) =
        (DigestCache::default(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let tasks = (0..TASKS).map(|_| {
        let (cache, begun, running) = (cache.clone(), begun.clone(), running.clone());
        tokio::spawn(async move {
            loop {
                match cache.claim(key()) {
                    Claim::Known(digest) => return digest,
                    Claim::Wait(mut waiter) => {
                        if let Some(digest) = waiter.wait().await {
                            return digest;
                        }
                    }
                    Claim::Compute(guard) => {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                        let attempt = begun.fetch_add(1, Ordering::SeqCst);
                        tokio::time::sleep(Duration::from_millis(2)).await;
                        running.fetch_sub(1, Ordering::SeqCst);
                        if attempt == TASKS - 1 {
                            guard.tell("d2");
                        }
                    }
                }
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        assert_eq!(task.await.unwrap(), "d2");
    }
    assert_eq!(begun.load(Ordering::SeqCst), TASKS);
}

#[tokio::test]
async fn one_waiter_takes_over_from_who_is_too_slow() {
    let cache = DigestCache::default();
    let slow = compute(cache.claim(key()));
    let (mut first, second) = (wait(cache.claim(key())), wait(cache.claim(key())));
    let fast = cache.take_over(key(), &first).unwrap();
    assert!(cache.take_over(key(), &second).is_none(), "somebody else already did");
    let mut third = wait(cache.claim(key()));
    fast.tell("d3");
    assert_eq!(third.wait().await.as_deref(), Some("d3"));
    drop(slow);
    assert_eq!(first.wait().await, None);
    assert_eq!(known(cache.claim(key())).as_deref(), Some("d3"), "the slow one does not take it away");
}

#[test]
fn the_oldest_is_forgotten_and_work_in_hand_never() {
    let cache = DigestCache::default();
    let directory = tempfile::tempdir().unwrap();
    let identity = |index: usize| {
        let path = directory.path().join(index.to_string());
        std::fs::write(&path, b"").unwrap();
        Key { identity: Identity::from(&std::fs::metadata(&path).unwrap()), algo: HashAlgo::Sha512 }
    };
    let keys: Vec<Key> = (0..REMEMBERED_MAX + 1).map(identity).collect();
    let working = compute(cache.claim(keys[0]));
    for key in &keys[1..] {
        compute(cache.claim(*key)).tell("d");
    }
    assert!(known(cache.claim(keys[REMEMBERED_MAX])).is_some());
    compute(cache.claim(keys[1]));
    wait(cache.claim(keys[0]));
    drop(working);
}
