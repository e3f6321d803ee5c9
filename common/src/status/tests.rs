use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::event::{Event, What};

const JOB: &str = "0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

fn event(second: i64, id: &str, run: u32, what: What) -> Event {
    Event {
        at: at(second),
        id: id.to_owned(),
        parent: None,
        run,
        kind: Some("upload".to_owned()),
        name: Some("noble".to_owned()),
        arch: Some("amd64".to_owned()),
        cloud: Some("edge-1".to_owned()),
        by: "host/1".to_owned(),
        what,
    }
}

fn started(attempt: u32) -> What {
    What::Started { attempt, alone: false }
}

fn retrying(attempt: u32) -> What {
    What::Retrying {
        until: at(60),
        error: "timed out".to_owned(),
        attempt,
        step: None,
        request_id: Some("req-1".to_owned()),
    }
}

fn succeeded(image: u32) -> What {
    What::Succeeded { result: json!({ "image_id": image }) }
}

fn failed(error: &str) -> What {
    What::Failed {
        error: error.to_owned(),
        field: Some("spec.keep".to_owned()),
        attempt: 1,
        step: None,
        request_id: None,
    }
}

fn fold(events: &[Event]) -> Fold {
    let mut fold = Fold::default();
    events.iter().for_each(|event| fold.apply(event));
    fold
}

fn history(whats: impl IntoIterator<Item = What>) -> JobStatus {
    let events: Vec<Event> = whats.into_iter().enumerate().map(|(n, what)| event(n as i64, JOB, 0, what)).collect();
    fold(&events).get(JOB)
}

#[test]
fn a_job_the_log_does_not_know_is_unknown() {
    let status = Fold::default().get(JOB);
    assert_eq!(status.state, State::Unknown);
    assert_eq!(
        serde_json::to_value(status).unwrap(),
        json!({
            "id": JOB, "kind": null, "name": null, "arch": null, "cloud": null, "state": "unknown", "attempts": 0,
            "created_at": null, "updated_at": null, "error": null, "result": null, "parent": null, "children": []
        })
    );
}

#[test]
fn a_job_walks_through_its_states() {
    assert_eq!(history([What::Queued]).state, State::Queued);
    assert_eq!(history([What::Queued, started(0)]).state, State::Running);
    let waiting = What::Waiting { until: at(9), why: "quota is full".to_owned(), attempt: 0, detached: false };
    let status = history([What::Queued, started(0), waiting]);
    assert_eq!(
        (status.state, status.waits_for.as_deref(), status.error),
        (State::Waiting, Some("quota is full"), None)
    );
    let status = history([What::Queued, started(0), retrying(1)]);
    assert_eq!((status.state, status.attempts), (State::Waiting, 1));
    assert_eq!(status.error.as_deref(), Some("timed out (request req-1)"));
    let status = history([What::Queued, started(0), retrying(1), started(1), succeeded(7)]);
    assert_eq!((status.state, status.attempts, status.error), (State::Succeeded, 2, None));
    assert_eq!(status.result, Some(json!({ "image_id": 7 })));
    assert_eq!((status.created_at, status.updated_at), (Some(at(0)), Some(at(4))));
    let status = history([What::Queued, failed("0 is too few")]);
    assert_eq!(status.error.as_deref(), Some("spec.keep: 0 is too few"));
    assert_eq!(history([What::Cancelled]).state, State::Cancelled);
}

#[test]
fn queued_said_late_never_moves_a_job_back() {
    for later in [started(0), retrying(1), succeeded(1), failed("no"), What::Cancelled] {
        let before = history([later.clone()]).state;
        assert_eq!(history([later, What::Queued]).state, before);
    }
}

#[test]
fn a_higher_run_opens_the_job_again_and_a_lower_one_is_over() {
    let mut events = vec![event(0, JOB, 0, started(4)), event(1, JOB, 0, failed("no")), event(2, JOB, 1, What::Queued)];
    let status = fold(&events).get(JOB);
    assert_eq!((status.state, status.attempts, status.error), (State::Queued, 0, None));
    assert_eq!(status.created_at, Some(at(0)));
    events.push(event(3, JOB, 0, failed("an echo")));
    assert_eq!(fold(&events).get(JOB).state, State::Queued);
    events.push(event(4, JOB, 1, succeeded(1)));
    assert_eq!(fold(&events).get(JOB).state, State::Succeeded);
}

#[test]
fn progress_and_warnings_change_no_state() {
    let progress = |bytes| What::Progress { bytes, total: 10, rate: 2 };
    let warning = What::Warning { message: "slow".to_owned() };
    let status = history([What::Queued, progress(3), warning.clone(), progress(5)]);
    assert_eq!(status.state, State::Queued);
    assert_eq!(status.transfer, Some(Transfer { bytes: 5, total: 10, rate: 2 }));
    assert_eq!(history([started(0), progress(3), succeeded(1), progress(5)]).transfer, None);
    assert_eq!(history([warning]).state, State::Unknown);
    assert_eq!(fold(&[event(0, JOB, 0, progress(1))]).jobs().count(), 0);
}

#[test]
fn children_are_found_through_either_end() {
    let parent: Uuid = JOB.parse().unwrap();
    let mut first = event(0, "a", 0, What::Queued);
    first.parent = Some(parent);
    let told = What::Succeeded { result: json!({ "image_id": "x", "children": ["a", "b"] }) };
    let fold = fold(&[first, event(1, JOB, 0, told)]);
    assert_eq!(fold.get(JOB).children, ["a", "b"]);
    assert_eq!(fold.get("a").parent.as_deref(), Some(JOB));
    assert_eq!(fold.get("b").parent.as_deref(), Some(JOB));
    assert_eq!(fold.get("b").state, State::Unknown);
    assert_eq!(fold.jobs().map(|job| job.id).collect::<Vec<_>>(), ["a", JOB]);
}

#[test]
fn the_unfinished_are_those_that_are_known_and_have_not_ended() {
    let warning = What::Warning { message: "slow".to_owned() };
    let fold = fold(&[
        event(0, "a", 0, What::Queued),
        event(0, "b", 0, started(0)),
        event(0, "c", 0, retrying(1)),
        event(0, "d", 0, What::Cancelled),
        event(0, "e", 0, warning),
    ]);
    assert_eq!(fold.unfinished().map(|job| job.id).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_message_without_a_readable_id_is_known_by_its_digest() {
    // The digest is that of `printf '{' | sha256sum`.
    assert_eq!(message_id(b"{"), "msg-021fb596db81");
    assert_eq!(message_id(format!(r#"{{"id":"{}"}}"#, JOB.to_uppercase()).as_bytes()), JOB);
}

#[test]
fn many_events_fold_in_little_time_and_few_words() {
    let jobs: Vec<String> = (0..50_000u128).map(|n| Uuid::from_u128(n).to_string()).collect();
    let mut fold = Fold::default();
    for what in [What::Queued, started(0), retrying(1), started(1), succeeded(1)] {
        jobs.iter().for_each(|id| fold.apply(&event(0, id, 0, what.clone())));
    }
    assert_eq!(fold.jobs().filter(|job| job.state == State::Succeeded).count(), jobs.len());
    assert_eq!(fold.words(), 4);
}

fn any_what() -> impl Strategy<Value = What> {
    prop_oneof![
        Just(What::Queued),
        (0u32..4).prop_map(started),
        (1u32..4).prop_map(retrying),
        any::<u32>().prop_map(succeeded),
        "[a-z]{1,5}".prop_map(|error| failed(&error)),
        Just(What::Cancelled),
        Just(What::Warning { message: "w".to_owned() }),
        Just(What::Progress { bytes: 1, total: 2, rate: 3 }),
    ]
}

fn outcome(status: &JobStatus) -> (State, Option<String>, Option<Value>) {
    (status.state, status.error.clone(), status.result.clone())
}

proptest! {
    #[test]
    fn the_first_terminal_event_of_the_last_run_is_the_outcome(
        told in proptest::collection::vec((0i64..100, 0u32..3, any_what()), 1..40),
        repeats in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
    ) {
        let mut events: Vec<Event> = told.into_iter().map(|(second, run, what)| event(second, JOB, run, what)).collect();
        // What is said twice, or late, stands somewhere behind the first time.
        for index in &repeats {
            let again = events[index.index(events.len())].clone();
            events.push(again);
        }
        let run = events.iter().filter(|event| !matches!(event.what, What::Progress { .. })).map(|event| event.run).max();
        let first = events.iter().find(|event| Some(event.run) == run && event.what.is_terminal());
        let status = fold(&events).get(JOB);
        match first {
            Some(first) => {
                let alone = fold(std::slice::from_ref(first)).get(JOB);
                prop_assert_eq!(outcome(&status), outcome(&alone));
            }
            None => prop_assert!(!status.state.is_terminal()),
        }
        prop_assert!(status.created_at <= status.updated_at);
    }

    #[test]
    fn jobs_do_not_disturb_each_other(
        told in proptest::collection::vec((any::<bool>(), 0i64..100, any_what()), 1..60),
    ) {
        let name = |other: bool| if other { "other" } else { JOB };
        let events: Vec<Event> =
            told.into_iter().map(|(other, second, what)| event(second, name(other), 0, what)).collect();
        let own: Vec<Event> = events.iter().filter(|event| event.id == JOB).cloned().collect();
        prop_assert_eq!(fold(&events).get(JOB), fold(&own).get(JOB));
    }
}
