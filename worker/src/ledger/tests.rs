use imagewright_common::job::{Keep, PruneSpec, Spec, VERSION};
use serde_json::json;

use super::*;

const JOB: Uuid = Uuid::from_u128(1);
const PARENT: Uuid = Uuid::from_u128(2);

fn message() -> Message {
    let keep = Keep::try_from(2).unwrap();
    let spec = PruneSpec { name: "n".parse().unwrap(), cloud: "c".parse().unwrap(), keep, arch: None };
    let (asked_at, deadline, progress) = (None, None, None);
    Message { version: VERSION, id: JOB, parent: Some(PARENT), asked_at, deadline, spec: Spec::Prune(spec), progress }
}

fn event(job: Uuid, by: &str, what: What) -> Event {
    let mut event = Event::of(&message(), by, what);
    event.id = job.to_string();
    event
}

fn goes_on() -> What {
    waiting(true)
}

fn waiting(detached: bool) -> What {
    What::Waiting { until: Timestamp::now(), why: "because".to_owned(), attempt: 0, detached }
}

fn folded(events: &[(&str, What)]) -> Ledger {
    let (ledger, _) = Ledger::new();
    for (by, what) in events {
        ledger.take(&event(JOB, by, what.clone()));
    }
    ledger
}

fn told(events: &[(&str, What)]) -> Detached {
    folded(events).detached(&message())
}

#[test]
fn a_request_reaches_the_job_and_those_it_enqueued() {
    let (ledger, mut heard) = Ledger::new();
    assert!(!ledger.is_wanted(&message()));
    assert!(ledger.take(&event(JOB, "w", What::CancelRequested)));
    assert!(!ledger.take(&event(JOB, "w", What::CancelRequested)));
    assert!(ledger.is_wanted(&message()));
    assert!(heard.try_recv().is_err(), "only what is followed is passed on");
    let (ledger, _) = Ledger::new();
    ledger.take(&event(PARENT, "w", What::CancelRequested));
    assert!(ledger.is_wanted(&message()));
    assert!(!ledger.has_ended(PARENT));
    ledger.take(&event(PARENT, "w", What::Cancelled));
    assert!(ledger.has_ended(PARENT) && ledger.is_wanted(&message()));
}

#[test]
fn the_first_end_of_a_build_is_remembered_for_its_run() {
    let (ledger, _) = Ledger::new();
    let end = |kind: &str, run, what| {
        let mut event = event(JOB, "w", what);
        (event.kind, event.run) = (Some(kind.to_owned()), run);
        ledger.take(&event);
        ledger.built(&message())
    };
    let failed = What::Failed { error: "why".to_owned(), field: None, attempt: 1, step: None, request_id: None };
    assert_eq!(end("prune", 0, What::Cancelled), None);
    assert_eq!(end("build", 0, What::Queued), None);
    assert_eq!(end("build", 0, failed), Some(Before::Badly("why".to_owned())));
    assert_eq!(end("build", 0, What::Cancelled), Some(Before::Badly("why".to_owned())));
    assert_eq!(end("build", 1, What::Cancelled), None, "another run");
}

#[test]
fn a_request_is_for_one_run() {
    let (ledger, _) = Ledger::new();
    let mut request = event(JOB, "w", What::CancelRequested);
    request.run = 1;
    ledger.take(&request);
    assert!(!ledger.is_wanted(&message()));
}

#[tokio::test]
async fn whoever_waits_for_a_request_is_woken() {
    let (ledger, _) = Ledger::new();
    let ledger = Arc::new(ledger);
    let waiting = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.wanted(&message()).await }
    });
    tokio::task::yield_now().await;
    ledger.take(&event(JOB, "w", What::CancelRequested));
    waiting.await.unwrap();
}

#[test]
fn how_a_step_ended_that_went_on_is_known_from_whoever_had_it() {
    let until = Timestamp::now();
    let retrying = What::Retrying { until, error: "reset".to_owned(), attempt: 4, step: None, request_id: None };
    assert_eq!(told(&[]), Detached::Unheard);
    assert!(matches!(told(&[("a", goes_on())]), Detached::GoesOn(_)));
    assert!(matches!(told(&[("a", goes_on()), ("b", waiting(false))]), Detached::GoesOn(_)));
    assert_eq!(told(&[("a", goes_on()), ("a", waiting(false))]), Detached::HandedBack);
    let failed = Detached::Failed { attempt: 4, until, error: "reset".to_owned() };
    assert_eq!(told(&[("a", goes_on()), ("a", retrying)]), failed);
    let done = What::Succeeded { result: json!({}) };
    assert_eq!(told(&[("a", goes_on()), ("b", done.clone())]), Detached::Ended(done.clone()));
    assert_eq!(told(&[("a", goes_on()), ("a", done.clone()), ("a", waiting(false))]), Detached::Ended(done));
    assert!(matches!(told(&[("a", goes_on()), ("a", waiting(false)), ("b", goes_on())]), Detached::GoesOn(_)));
}

#[test]
fn a_prune_that_waits_is_known_until_it_goes_on() {
    let (ledger, _) = Ledger::new();
    ledger.take(&event(JOB, "w", waiting(false)));
    assert!(ledger.waits_until(JOB).is_some());
    ledger.take(&event(JOB, "w", What::Started { attempt: 0, alone: false }));
    assert!(ledger.waits_until(JOB).is_none());
}

fn alone(attempt: u32) -> What {
    What::Started { attempt, alone: true }
}

fn retrying() -> What {
    What::Retrying { until: Timestamp::now(), error: "it broke".to_owned(), attempt: 1, step: None, request_id: None }
}

fn starts_alone(events: &[(&str, What)]) -> u32 {
    folded(events).starts_alone(&message())
}

#[test]
fn only_workers_that_died_with_a_job_alone_count_against_it() {
    let together = What::Started { attempt: 0, alone: false };
    assert_eq!(starts_alone(&[("a", together.clone()), ("b", together)]), 0);
    assert_eq!(starts_alone(&[("a", alone(0)), ("b", waiting(false)), ("c", alone(0))]), 2);
    assert_eq!(starts_alone(&[("a", alone(0)), ("a", goes_on()), ("b", alone(0))]), 2);
}

#[test]
fn whoever_tells_how_a_job_went_on_was_not_crashed_by_it() {
    assert_eq!(starts_alone(&[("a", alone(0)), ("b", alone(0)), ("b", retrying())]), 0);
    assert_eq!(starts_alone(&[("a", alone(0)), ("a", waiting(false))]), 0);
    assert_eq!(starts_alone(&[("a", alone(0)), ("b", retrying())]), 1);
}

#[test]
fn what_the_follower_reads_again_counts_once() {
    let (ledger, _) = Ledger::new();
    let start = event(JOB, "a", alone(0));
    ledger.take(&start);
    ledger.take(&start);
    assert_eq!(ledger.starts_alone(&message()), 1);
}
