use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::*;

const ROOT: Uuid = Uuid::from_u128(1);
const CHILD: Uuid = Uuid::from_u128(2);
const STRANGER: Uuid = Uuid::from_u128(9);

fn event(id: Uuid, parent: Option<Uuid>, kind: &str, what: What) -> Event {
    Event {
        at: Timestamp::UNIX_EPOCH,
        id: id.to_string(),
        parent,
        run: 0,
        kind: Some(kind.to_owned()),
        name: Some("noble".to_owned()),
        arch: Some("amd64".to_owned()),
        cloud: Some("edge-1".to_owned()),
        by: "h/1".to_owned(),
        what,
    }
}

fn failed() -> What {
    What::Failed { error: "no".to_owned(), field: None, attempt: 3, step: None, request_id: None }
}

fn uploaded(children: &[Uuid]) -> What {
    What::Succeeded { result: json!({ "image_id": "i-1", "children": children }) }
}

fn pruned() -> What {
    What::Succeeded { result: json!({ "kept": [1, 2], "deleted": [] }) }
}

fn watch(events: &[Event]) -> Watch {
    let mut watch = Watch::new(vec![ROOT.to_string()]);
    for event in events {
        watch.take(event);
    }
    watch
}

#[test]
fn the_tree_is_over_when_the_children_are() {
    let upload = event(ROOT, None, "upload", uploaded(&[CHILD]));
    assert!(!watch(std::slice::from_ref(&upload)).is_over(), "a child is told of by the result");
    let prune = |what| event(CHILD, Some(ROOT), "prune", what);
    assert!(!watch(&[prune(What::Queued), event(ROOT, None, "upload", uploaded(&[]))]).is_over());
    let over = watch(&[upload, prune(What::Queued), prune(pruned())]);
    assert!(over.is_over());
    assert_eq!(over.ending(), Ending { exit: Exit::Ok, lines: Vec::new() });
    assert_eq!(over.jobs().iter().map(|job| job.id.clone()).collect::<Vec<_>>(), [ROOT.to_string(), CHILD.to_string()]);
}

#[test]
fn strangers_are_no_news() {
    let mut watch = Watch::new(vec![ROOT.to_string()]);
    assert_eq!(watch.take(&event(STRANGER, None, "upload", failed())), None);
    assert!(watch.is_untouched());
    assert_eq!(watch.jobs().len(), 1);
}

#[test]
fn a_failed_prune_of_an_upload_is_a_warning() {
    let ending =
        watch(&[event(ROOT, None, "upload", uploaded(&[CHILD])), event(CHILD, Some(ROOT), "prune", failed())]).ending();
    assert_eq!(ending.exit, Exit::Ok);
    assert!(ending.lines[0].starts_with("warning: prune noble"), "{:?}", ending.lines);
}

#[test]
fn a_failed_job_is_a_failure_and_so_is_a_prune_that_was_asked_for() {
    for kind in ["upload", "prune"] {
        let ending = watch(&[event(ROOT, None, kind, failed())]).ending();
        assert_eq!(ending.exit, Exit::JobFailed);
        assert!(ending.lines[0].contains("failed: no"), "{:?}", ending.lines);
    }
    assert_eq!(watch(&[event(ROOT, None, "upload", What::Cancelled)]).ending().exit, Exit::JobFailed);
    let child = event(CHILD, Some(ROOT), "upload", failed());
    assert_eq!(watch(&[event(ROOT, None, "build", uploaded(&[])), child]).ending().exit, Exit::JobFailed);
}

#[test]
fn what_is_said_twice_is_news_once() {
    let mut watch = Watch::new(vec![ROOT.to_string()]);
    let mut take = |what| watch.take(&event(ROOT, None, "upload", what)).is_some();
    assert!(take(What::Started { attempt: 0, alone: false }));
    assert!(!take(What::Queued), "said late");
    assert!(take(What::Progress { bytes: 1, total: 2, rate: 1 }));
    assert!(take(uploaded(&[])));
    assert!(!take(failed()), "said by the worker that came second");
    assert!(!take(What::Progress { bytes: 2, total: 2, rate: 1 }));
}

#[test]
fn a_line_says_what_matters() {
    let job = |whats: &[What]| {
        let events: Vec<Event> = whats.iter().map(|what| event(ROOT, None, "upload", what.clone())).collect();
        watch(&events).jobs().remove(0)
    };
    assert_eq!(label(&job(&[What::Queued])), format!("upload noble amd64 on edge-1 ({ROOT})"));
    assert_eq!(standing(&job(&[What::Started { attempt: 1, alone: false }])), "running, attempt 2");
    let until = Timestamp::UNIX_EPOCH;
    let retrying = What::Retrying { until, error: "reset".to_owned(), attempt: 1, step: None, request_id: None };
    assert_eq!(standing(&job(&[retrying])), "waiting to try again after: reset");
    assert_eq!(
        standing(&job(&[What::Waiting { until, why: "quota is full".to_owned(), attempt: 0, detached: false }])),
        "waiting: quota is full"
    );
    assert_eq!(standing(&job(&[uploaded(&[])])), "succeeded, image i-1");
    assert_eq!(standing(&job(&[pruned()])), "succeeded, kept 2, deleted 0");
}
