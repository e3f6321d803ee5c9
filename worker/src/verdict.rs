//! What follows from how a step ended: the only retry policy there is. Pure, so that all of it is in the tests below.

use std::time::Duration;

use imagewright_common::backoff;
use imagewright_common::event::What;
use imagewright_common::job::{Kind, Message};
use imagewright_common::queue::{Burial, Counts, Verdict};
use jiff::Timestamp;
use serde_json::Value;

/// Deliveries lost with their process after which a job runs alone.
pub(crate) const CRASHES_ALONE: u32 = 3;

/// Workers that died while it ran alone, after which a job is buried. What is lost beside others counts for nothing: with
/// one poison job, or a machine that fails, the innocent are lost as often.
pub(crate) const CRASHES_ALONE_MAX: u32 = 5;

/// Deliveries lost after which a job is buried that no worker could even begin with: twice what the broker bears.
pub(crate) const CRASHES_MAX: u32 = 40;

/// Tries for a cloud that no worker so far knows, and the time between them.
const UNKNOWN_CLOUD_TRIES: u32 = 3;
const UNKNOWN_CLOUD_WAIT: Duration = Duration::from_secs(10);

const BACKOFF_BASE: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_secs(1800);
const BUSY_WAIT: Duration = Duration::from_secs(30);

/// A cloud may ask to be left alone for longer than the backoff, not for less: `Retry-After: 0` of one that is down for a
/// minute would cost every attempt there is.
const SOONEST: Duration = Duration::from_secs(1);

/// How a step ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The job is done.
    Succeeded {
        /// What came of it.
        result: Value,
        /// Jobs that follow.
        children: Vec<Message>,
    },
    /// Look again later.
    Wait {
        /// Not before.
        after: Duration,
        /// What is waited for.
        why: String,
    },
    /// One step is done, and the next one is known.
    Next {
        /// The message that it goes by.
        payload: Vec<u8>,
        /// Not before.
        after: Duration,
        /// What is waited for.
        why: String,
        /// Jobs that follow already.
        children: Vec<Message>,
    },
    /// Another worker goes on with it.
    TakenOver,
    /// It had ended before, and what came of it is in the log.
    Before(Before),
    /// It went wrong.
    Failed(Failure),
}

/// What the log says of a job that ended before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// It did what was asked.
    Well,
    /// It failed like this, and its message belongs to the dead.
    Badly(String),
}

/// What went wrong, by what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) sort: Sort,
    pub(crate) error: String,
    pub(crate) request_id: Option<String>,
    /// What was being done.
    pub(crate) step: Option<&'static str>,
    /// The cloud that did not answer.
    pub(crate) silent: Option<String>,
}

impl Failure {
    /// A failure that no cloud gave an id to.
    pub(crate) fn plain(sort: Sort, error: impl Into<String>) -> Failure {
        Failure { sort, error: error.into(), request_id: None, step: None, silent: None }
    }

    fn step(&self) -> Option<String> {
        self.step.map(str::to_owned)
    }
}

/// See [`Failure`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// It may work next time.
    Transient { after: Option<Duration> },
    /// The cloud has no room, or does not let us in yet: as often as the deadline allows.
    Busy { after: Option<Duration> },
    /// This worker does not know the cloud that this field names; another may.
    UnknownCloud { field: &'static str },
    /// It can never work.
    Rejected { field: Option<String> },
}

/// What to say and what to do with the delivery.
#[derive(Debug)]
pub(crate) struct Decision {
    pub(crate) say: Option<What>,
    pub(crate) verdict: Verdict,
}

impl Decision {
    /// Failed attempts, the one just judged included, where the job ends with it.
    pub(crate) fn attempts(&self) -> Option<u32> {
        match (&self.verdict, &self.say) {
            (Verdict::Bury(_), Some(What::Failed { attempt, .. })) => Some(*attempt),
            _ => None,
        }
    }
}

/// Failed attempts that a kind of job is granted.
fn budget(kind: Kind) -> u32 {
    match kind {
        Kind::Upload | Kind::BaseImage => 25,
        Kind::Prune | Kind::Snapshot | Kind::Build => 15,
    }
}

/// Judge how a step of a job ended.
pub(crate) fn decide(
    kind: Kind,
    counts: &Counts,
    deadline: Timestamp,
    ended: Ended,
    worker: &str,
    now: Timestamp,
) -> Decision {
    match ended {
        Ended::Succeeded { result, .. } => Decision { say: Some(What::Succeeded { result }), verdict: Verdict::Done },
        Ended::Wait { after, why } => waiting(counts, after, why, now),
        Ended::Next { payload, after, why, .. } => {
            let say = What::Waiting { until: later(now, after), why, attempt: 0, detached: false };
            Decision { say: Some(say), verdict: Verdict::Continue { payload, after } }
        }
        Ended::TakenOver => Decision { say: None, verdict: Verdict::Release { after: Duration::from_secs(5) } },
        Ended::Before(Before::Well) => Decision { say: None, verdict: Verdict::Done },
        Ended::Before(Before::Badly(reason)) => {
            let burial = Burial { reason, worker: Some(worker.to_owned()), ..Burial::default() };
            Decision { say: None, verdict: Verdict::Bury(burial) }
        }
        Ended::Failed(failure) => failed(kind, counts, deadline, failure, worker, now),
    }
}

fn waiting(counts: &Counts, after: Duration, why: String, now: Timestamp) -> Decision {
    let say = What::Waiting { until: later(now, after), why, attempt: counts.attempt, detached: false };
    Decision { say: Some(say), verdict: Verdict::Release { after } }
}

fn failed(
    kind: Kind,
    counts: &Counts,
    deadline: Timestamp,
    failure: Failure,
    worker: &str,
    now: Timestamp,
) -> Decision {
    let attempt = counts.attempt.saturating_add(1);
    let (after, tries) = match failure.sort {
        Sort::Rejected { ref field } => {
            let field = field.clone();
            return bury(failure.error.clone(), field, failure, counts.attempt, worker);
        }
        Sort::Busy { after } if now < deadline => {
            let after = after.map_or_else(|| backoff::jitter(BUSY_WAIT), |asked| asked.max(SOONEST));
            return waiting(counts, after, failure.error, now);
        }
        Sort::Busy { after } => (after.unwrap_or(BUSY_WAIT), u32::MAX),
        Sort::UnknownCloud { .. } => (UNKNOWN_CLOUD_WAIT, UNKNOWN_CLOUD_TRIES),
        Sort::Transient { after } => {
            let own = backoff::full_jitter(counts.attempt, BACKOFF_BASE, BACKOFF_MAX);
            (after.map_or(own, |asked| asked.max(own).max(SOONEST)), budget(kind))
        }
    };
    if now >= deadline {
        return bury(past_deadline(deadline), Some("deadline".to_owned()), failure, attempt, worker);
    }
    if attempt >= tries {
        let field = match failure.sort {
            Sort::UnknownCloud { field } => Some(field.to_owned()),
            Sort::Transient { .. } | Sort::Busy { .. } | Sort::Rejected { .. } => None,
        };
        return bury(format!("{} (attempt {attempt}, the last)", failure.error), field, failure, attempt, worker);
    }
    let until = later(now, after);
    let (step, error) = (failure.step(), failure.error.clone());
    let say = What::Retrying { until, error, attempt, step, request_id: failure.request_id };
    Decision { say: Some(say), verdict: Verdict::Retry { after, error: failure.error } }
}

/// What a job past its deadline is told.
pub(crate) fn past_deadline(deadline: Timestamp) -> String {
    format!("its deadline {deadline:.0} has passed")
}

fn bury(reason: String, field: Option<String>, failure: Failure, attempt: u32, worker: &str) -> Decision {
    let error = (reason != failure.error).then(|| failure.error.clone());
    let burial = Burial {
        reason: reason.clone(),
        field: field.clone(),
        error,
        request_id: failure.request_id.clone(),
        worker: Some(worker.to_owned()),
    };
    let say = What::Failed { error: reason, field, attempt, step: failure.step(), request_id: failure.request_id };
    Decision { say: Some(say), verdict: Verdict::Bury(burial) }
}

pub(crate) fn later(now: Timestamp, after: Duration) -> Timestamp {
    now.saturating_add(after).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().unwrap()
    }

    fn judge(attempt: u32, sort: Sort, hours_left: i64) -> Decision {
        let counts = Counts { attempt, ..Counts::default() };
        let failure =
            Failure { request_id: Some("req-1".to_owned()), step: Some("send"), ..Failure::plain(sort, "it broke") };
        let deadline = now() + jiff::SignedDuration::from_hours(hours_left);
        decide(Kind::Upload, &counts, deadline, Ended::Failed(failure), "w", now())
    }

    #[test]
    fn a_transient_failure_counts_and_backs_off() {
        let decision = judge(3, Sort::Transient { after: None }, 24);
        let Verdict::Retry { after, .. } = decision.verdict else { panic!("{decision:?}") };
        assert!(after <= Duration::from_secs(16));
        assert!(matches!(decision.say, Some(What::Retrying { attempt: 4, .. })));
    }

    #[test]
    fn what_the_cloud_asks_for_is_granted() {
        let decision = judge(0, Sort::Transient { after: Some(Duration::from_secs(77)) }, 24);
        assert_eq!(decision.verdict, Verdict::Retry { after: Duration::from_secs(77), error: "it broke".to_owned() });
    }

    #[test]
    fn a_cloud_that_asks_for_no_wait_does_not_cost_all_attempts_at_once() {
        let soonest = |attempt| {
            let verdict = judge(attempt, Sort::Transient { after: Some(Duration::ZERO) }, 24).verdict;
            let Verdict::Retry { after, .. } = verdict else { panic!("{verdict:?}") };
            after
        };
        assert!(soonest(0) >= SOONEST);
        let most = (0..100).map(|_| soonest(20)).max().unwrap();
        assert!(most > Duration::from_secs(300), "the backoff grows whatever the cloud says: {most:?}");
        let busy = judge(0, Sort::Busy { after: Some(Duration::ZERO) }, 24).verdict;
        assert_eq!(busy, Verdict::Release { after: SOONEST });
    }

    #[test]
    fn the_budget_ends_in_the_grave() {
        assert!(matches!(judge(23, Sort::Transient { after: None }, 24).verdict, Verdict::Retry { .. }));
        assert!(matches!(judge(24, Sort::Transient { after: None }, 24).verdict, Verdict::Bury(_)));
    }

    #[test]
    fn a_full_cloud_costs_no_attempt_but_not_beyond_the_deadline() {
        assert!(matches!(judge(500, Sort::Busy { after: None }, 1).verdict, Verdict::Release { .. }));
        let Verdict::Bury(burial) = judge(0, Sort::Busy { after: None }, -1).verdict else { panic!("not buried") };
        assert_eq!(burial.field.as_deref(), Some("deadline"));
        assert_eq!(burial.error.as_deref(), Some("it broke"));
    }

    #[test]
    fn a_wrong_request_is_buried_at_once_with_its_field() {
        let Verdict::Bury(burial) = judge(0, Sort::Rejected { field: Some("spec.source.file".to_owned()) }, 24).verdict
        else {
            panic!("not buried")
        };
        assert_eq!(burial.field.as_deref(), Some("spec.source.file"));
        assert_eq!(burial.request_id.as_deref(), Some("req-1"));
    }

    #[test]
    fn an_unknown_cloud_is_tried_three_times() {
        assert!(matches!(judge(1, Sort::UnknownCloud { field: "spec.cloud" }, 24).verdict, Verdict::Retry { .. }));
        let Verdict::Bury(burial) = judge(2, Sort::UnknownCloud { field: "spec.cloud" }, 24).verdict else {
            panic!("not buried")
        };
        assert_eq!(burial.field.as_deref(), Some("spec.cloud"));
    }

    #[test]
    fn waiting_counts_as_nothing() {
        let ended = Ended::Wait { after: Duration::from_secs(15), why: "the cloud".to_owned() };
        let decision = decide(Kind::Prune, &Counts::default(), now(), ended, "w", now());
        assert_eq!(decision.verdict, Verdict::Release { after: Duration::from_secs(15) });
    }
}
