//! What an operator sees.

use std::time::Duration;

use super::*;
use crate::queue::{Burial, Dead, Depth, Fate};

async fn bury(backend: &Backend, payload: &str, burial: Burial) {
    publish(backend, LANE, &[payload]).await;
    let mut new = consume(backend, Tap::New(LANE), 1).await;
    settle(take(&mut new).await, Verdict::Bury(burial)).await;
}

/// A buried job keeps its message, its counts, and every word about why.
pub async fn the_dead_tell_why(harness: &dyn Harness) {
    let backend = harness.open().await;
    publish(&backend, LANE, &["first"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 1).await;
    let mut started = consume(&backend, Tap::Started(LANE), 1).await;
    settle(take(&mut new).await, Verdict::Retry { after: Duration::ZERO, error: "no".to_owned() }).await;
    let burial = Burial {
        reason: "spec.keep: not 0".to_owned(),
        field: Some("spec.keep".to_owned()),
        error: Some("größer".to_owned()),
        request_id: Some("req-1".to_owned()),
        worker: Some("host/7".to_owned()),
    };
    settle(take(&mut started).await, Verdict::Bury(burial.clone())).await;
    drop((new, started));
    bury(&backend, "second", Burial::default()).await;

    let dead = backend.desk.dead().await.unwrap();
    assert_eq!(dead.len(), 2);
    assert_eq!((dead[0].payload.as_slice(), dead[0].attempts, &dead[0].burial), (b"first".as_slice(), 1, &burial));
    assert_eq!((dead[1].payload.as_slice(), dead[1].attempts), (b"second".as_slice(), 0));
    for dead in &dead {
        assert!(dead.first_at.unwrap() <= dead.last_at.unwrap(), "{dead:?}");
    }
}

/// Each of the dead is judged by itself: one stays, one goes for good, one is a new job again, with another message.
pub async fn the_dead_are_judged_one_by_one(harness: &dyn Harness) {
    let backend = harness.open().await;
    for payload in ["keep", "discard", "requeue"] {
        bury(&backend, payload, Burial { reason: payload.to_owned(), ..Burial::default() }).await;
    }
    let judge = |dead: &Dead| match dead.payload.as_slice() {
        b"discard" => Fate::Discard,
        b"requeue" => Fate::Requeue { lane: LANE, id: "an id".to_owned(), payload: b"second run".to_vec() },
        _ => Fate::Keep,
    };
    let settled = backend.desk.judge_dead(Box::new(judge)).await.unwrap();
    let reasons: Vec<&str> = settled.iter().map(|dead| dead.burial.reason.as_str()).collect();
    assert_eq!(reasons, ["discard", "requeue"]);
    let left = backend.desk.dead().await.unwrap();
    assert_eq!(left.iter().map(|dead| dead.payload.as_slice()).collect::<Vec<_>>(), [b"keep"]);
    let mut new = consume(&backend, Tap::New(LANE), 2).await;
    let again = take(&mut new).await;
    assert_eq!((text(&again).as_str(), numbers(&again.counts)), ("second run", (0, 0)));
    settle(again, Verdict::Done).await;
    nothing(&mut new).await;
    assert!(backend.desk.judge_dead(Box::new(|_| Fate::Discard)).await.unwrap().len() == 1);
    assert!(backend.desk.judge_dead(Box::new(|_| Fate::Discard)).await.unwrap().is_empty());
}

/// Two who requeue everything at the same time requeue each job once.
pub async fn two_judges_do_not_meet(harness: &dyn Harness) {
    let (left, right) = (harness.open().await, harness.open().await);
    for payload in ["one", "two", "three"] {
        bury(&left, payload, Burial::default()).await;
    }
    let judge =
        || Box::new(|dead: &Dead| Fate::Requeue { lane: LANE, id: "id".to_owned(), payload: dead.payload.clone() });
    let (here, there) = tokio::join!(left.desk.judge_dead(judge()), right.desk.judge_dead(judge()));
    assert_eq!(here.unwrap().len() + there.unwrap().len(), 3);
    let mut new = consume(&left, Tap::New(LANE), 5).await;
    let mut back = Vec::new();
    for _ in 0..3 {
        let delivery = take(&mut new).await;
        back.push(text(&delivery));
        settle(delivery, Verdict::Done).await;
    }
    back.sort();
    assert_eq!(back, ["one", "three", "two"]);
    nothing(&mut new).await;
}

/// However often one looks, from however many places at once, the dead stay and stay the same.
pub async fn looking_at_the_dead_changes_nothing(harness: &dyn Harness) {
    let (left, right) = (harness.open().await, harness.open().await);
    for payload in ["one", "two", "three"] {
        bury(&left, payload, Burial { reason: payload.to_owned(), ..Burial::default() }).await;
    }
    let before = left.desk.dead().await.unwrap();
    assert_eq!(before.len(), 3);
    for _ in 0..20 {
        let (here, there) = tokio::join!(left.desk.dead(), right.desk.dead());
        assert_eq!(here.unwrap(), before);
        assert_eq!(there.unwrap(), before);
    }
    drop((left, right));
    assert_eq!(harness.open().await.desk.dead().await.unwrap(), before);
}

/// Every job lies in one place, one in hand in none, and the places have the names of the contract.
pub async fn depths_add_up(harness: &dyn Harness) {
    let backend = harness.open().await;
    let prune = Lane { kind: Kind::Prune, arch: None };
    publish(&backend, prune, &["a", "b"]).await;
    publish(&backend, LANE, &["waits", "dies", "goes on", "in hand"]).await;
    let mut new = consume(&backend, Tap::New(LANE), 4).await;
    let deliveries = [take(&mut new).await, take(&mut new).await, take(&mut new).await];
    let in_hand = take(&mut new).await;
    let verdicts = [
        Verdict::Release { after: Duration::from_secs(60) },
        Verdict::Bury(Burial::default()),
        Verdict::Continue { payload: b"went on".to_vec(), after: Duration::ZERO },
    ];
    for (delivery, verdict) in deliveries.into_iter().zip(verdicts) {
        settle(delivery, verdict).await;
    }
    let look = async || backend.desk.depths().await.unwrap();
    let fits = |rows: &Vec<Depth>| {
        ready(rows, ".prune.any") == 2
            && ready(rows, ".upload.amd64") == 0
            && ready(rows, ".upload.amd64.started") == 1
            && ready(rows, ".wait") == 1
            && ready(rows, ".lost") == 0
            && ready(rows, ".dead") == 1
            && rows.iter().map(|row| row.ready).sum::<u64>() == 5
            && (1..=2).contains(&consumers(rows))
    };
    // Who waits for a job gives back in time what it needed for many.
    nothing_for(&mut new, Duration::from_secs(2)).await;
    eventually("two new, one started, one waiting, one dead, a consumer, perhaps one of the job in hand", look, fits)
        .await;
    new.stop().await.unwrap();
    // A broker may count a stopped consumer for as long as it holds a job.
    settle(in_hand, Verdict::Done).await;
    eventually("no consumer after its stop", look, |rows| consumers(rows) == 0).await;
}

/// What lies in the queues of this name; the rungs of a ladder count as one.
fn ready(rows: &[Depth], name: &str) -> u64 {
    let is_it = |row: &&Depth| row.queue.ends_with(name) || name == ".wait" && row.queue.contains(".wait.");
    rows.iter().filter(is_it).map(|row| row.ready).sum()
}

fn consumers(rows: &[Depth]) -> u64 {
    rows.iter().map(|row| row.consumers).sum()
}

/// Kinds are paused one by one, everybody sees it, twice is once, and it survives whoever said so.
pub async fn a_pause_lasts_until_it_is_ended(harness: &dyn Harness) {
    let (here, there) = (harness.open().await, harness.open().await);
    assert_eq!(there.desk.paused().await.unwrap(), []);
    for kind in [Kind::Upload, Kind::Prune, Kind::Upload] {
        here.desk.pause(kind).await.unwrap();
    }
    let look = async || there.desk.paused().await.unwrap();
    eventually("two are paused", look, |paused| *paused == [Kind::Upload, Kind::Prune]).await;
    drop(here);
    there.desk.resume(Kind::Prune).await.unwrap();
    drop(there);
    let later = harness.open().await;
    assert_eq!(later.desk.paused().await.unwrap(), [Kind::Upload]);
    later.desk.resume(Kind::Upload).await.unwrap();
    later.desk.resume(Kind::Upload).await.unwrap();
    assert_eq!(later.desk.paused().await.unwrap(), []);
}

/// Once somebody takes jobs, the queue is known to be there.
pub async fn who_takes_jobs_is_told_that_the_queue_is_up(harness: &dyn Harness) {
    let mut backend = harness.open().await;
    let _new = consume(&backend, Tap::New(LANE), 1).await;
    let told = tokio::time::timeout(SOON, backend.up.wait_for(|up| *up)).await;
    assert!(matches!(told, Ok(Ok(_))), "not told within {SOON:?}");
}
