use super::*;
use crate::schedule::file;
use imagewright_common::event::Event;
use serde_json::{Value, json};

const FILE: &str = "images: [{name: noble, arch: amd64, source: {file: /f}, clouds: [edge-1], interval: 1d}]";
const OTHER: &str = "0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55";

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

fn ago(hours: i64) -> Timestamp {
    now() - SignedDuration::from_hours(hours)
}

/// The job that this slot would enqueue.
fn own() -> String {
    let target = file::parse(FILE).unwrap().remove(0);
    Slot::at(now(), target.interval).job_id("imagewright", &target).to_string()
}

fn event(id: &str, at: Timestamp, what: Value) -> Event {
    let mut event = json!({
        "at": at, "id": id, "kind": "upload", "name": "noble", "arch": "amd64", "cloud": "edge-1", "by": "h/1"
    });
    event.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    serde_json::from_value(event).unwrap()
}

/// The cloud's newest revision and what the log told.
fn planned_at(now: Timestamp, newest: Option<Timestamp>, events: &[Event]) -> Planned {
    let revision = newest.map(|asked_at| (key(), Revision { id: "image".to_owned(), asked_at }));
    planned(now, Ok(revision.into_iter().collect()), events)
}

fn key() -> (ImageName, Arch) {
    ("noble".parse().unwrap(), Arch::Amd64)
}

fn planned(now: Timestamp, cloud: Result<Newest, Failure>, events: &[Event]) -> Planned {
    let mut jobs = Fold::default();
    events.iter().for_each(|event| jobs.apply(event));
    let clouds = HashMap::from([("edge-1".parse().unwrap(), cloud)]);
    plan(file::parse(FILE).unwrap(), &Seen { now, namespace: "imagewright", jobs, clouds }).remove(0)
}

#[test]
fn what_is_not_there_is_missing_and_gets_the_job_of_the_slot() {
    let planned = planned_at(now(), None, &[]);
    assert_eq!((planned.state, planned.job), (State::Missing, Some(own())));
    assert_eq!(planned.slot.start.to_string(), "2026-11-23T00:00:00Z");
}

#[test]
fn a_revision_is_stale_from_the_moment_it_is_as_old_as_the_interval() {
    let day = SignedDuration::from_hours(24);
    let asked_at = now() - day;
    let planned = planned_at(now(), Some(asked_at), &[]);
    assert_eq!((planned.state, planned.job), (State::Stale, Some(own())));
    assert!(planned.slot.start > asked_at, "the new revision is the newer one");
    let moment = SignedDuration::from_millis(1);
    let planned = planned_at(now() - moment, Some(asked_at), &[]);
    assert_eq!((planned.state, planned.job), (State::Fresh, None));
    assert!(planned.reason.ends_with("the next is due at 2026-11-23T10:00:00Z"), "{}", planned.reason);
}

#[test]
fn the_revision_of_a_slot_is_fresh_to_its_last_moment_and_then_stale() {
    let slot = Slot::at(now(), SignedDuration::from_hours(24));
    let moment = SignedDuration::from_millis(1);
    assert_eq!(planned_at(slot.end - moment, Some(slot.start), &[]).state, State::Fresh);
    let next = planned_at(slot.end, Some(slot.start), &[]);
    assert_eq!((next.state, next.slot.start), (State::Stale, slot.end));
    assert_ne!(next.job, Some(own()));
}

#[test]
fn an_upload_by_hand_since_the_slot_began_leaves_nothing_to_do() {
    let by_hand = ago(1);
    assert_eq!(planned_at(now(), Some(by_hand), &[]).state, State::Fresh);
    assert!(by_hand > planned_at(now(), None, &[]).slot.start, "and it would stay the newest");
}

#[test]
fn a_job_that_has_not_ended_is_not_doubled_whoever_asked_for_it() {
    let until = now();
    for (id, what, word) in [
        (own().as_str(), json!({"event": "queued"}), "queued"),
        (OTHER, json!({"event": "queued"}), "queued"),
        (OTHER, json!({"event": "started", "attempt": 0}), "running"),
        (OTHER, json!({"event": "waiting", "until": until, "why": "quota", "attempt": 0}), "waiting"),
        (OTHER, json!({"event": "retrying", "until": until, "error": "e", "attempt": 1}), "waiting"),
    ] {
        for newest in [None, Some(ago(30))] {
            let planned = planned_at(now(), newest, &[event(id, ago(2), what.clone())]);
            assert_eq!((planned.state, planned.job.as_deref()), (State::UnderWay, Some(id)));
            assert_eq!(planned.reason, format!("job {id} is {word} since 2026-11-23T08:00:00Z"));
        }
    }
}

#[test]
fn other_targets_and_their_prunes_are_not_in_the_way() {
    for (field, word) in [("name", "jammy"), ("arch", "arm64"), ("cloud", "edge-2"), ("kind", "prune")] {
        let other = event(OTHER, ago(2), json!({"event": "queued", field: word}));
        assert_eq!(planned_at(now(), None, &[other]).state, State::Missing, "{field}");
    }
}

#[test]
fn a_job_that_is_silent_beyond_its_deadline_is_not_waited_for() {
    let queued = |hours| event(OTHER, ago(hours), json!({"event": "queued"}));
    assert_eq!(planned_at(now(), None, &[queued(24)]).state, State::UnderWay);
    assert_eq!(planned_at(now(), None, &[queued(25)]).state, State::Missing);
}

#[test]
fn the_slots_own_job_is_enqueued_once_however_it_ended() {
    for (what, state, says) in [
        (json!({"event": "failed", "error": "no such file", "attempt": 1}), State::Failed, "dead requeue"),
        (json!({"event": "cancelled"}), State::Cancelled, "2026-11-24T00:00:00Z"),
        (json!({"event": "succeeded", "result": {}}), State::Gone, "imagewright upload"),
    ] {
        let planned = planned_at(now(), Some(ago(30)), &[event(&own(), ago(2), what.clone())]);
        assert_eq!((planned.state, planned.job), (state, Some(own())));
        assert!(planned.reason.contains(says), "{}", planned.reason);
        assert_eq!(planned_at(now(), None, &[event(OTHER, ago(2), what.clone())]).state, State::Missing);
        assert_eq!(planned_at(now(), Some(ago(1)), &[event(&own(), ago(2), what)]).state, State::Fresh);
    }
}

#[test]
fn a_failure_names_its_error_and_a_requeued_job_is_under_way() {
    let failed = event(&own(), ago(2), json!({"event": "failed", "error": "no such file", "attempt": 1}));
    assert!(planned_at(now(), None, std::slice::from_ref(&failed)).reason.contains("no such file"));
    let again = event(&own(), ago(1), json!({"event": "queued", "run": 1}));
    assert_eq!(planned_at(now(), None, &[failed, again]).state, State::UnderWay);
}

#[test]
fn a_cloud_that_does_not_tell_is_left_alone() {
    let planned = planned(now(), Err(Failure::unreachable("no answer")), &[]);
    assert_eq!((planned.state, planned.job, planned.reason.as_str()), (State::Unreachable, None, "no answer"));
    assert!(!planned.state.is_due());
}
