//! What every queue must do, as tests. A backend's own test file holds a [`Harness`] and one line:
//! `queue_conformance!(sqlite, SqliteHarness);`

#![expect(clippy::unwrap_used, reason = "a failed case is a failed test")]

mod counting;
mod delivery;
mod desk;
mod logging;
mod loss;
mod settling;

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

use super::{Backend, Consumer, Counts, Delivery, Tap, Verdict};
use crate::arch::Arch;
use crate::job::{Kind, Lane};
pub use counting::*;
pub use delivery::*;
pub use desk::*;
pub use logging::*;
pub use loss::*;
pub use settling::*;

/// Gives a case a queue of its own.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A namespace that nobody else uses, with nothing in it.
    async fn fresh() -> Self
    where
        Self: Sized;

    /// Open it, as one more process would.
    async fn open(&self) -> Backend;

    /// Remove it, after a case that passed.
    async fn remove(&self) {}
}

/// How long a case may take, everything included.
const CASE_MAX: Duration = Duration::from_secs(60);

/// How long something may take that must happen.
const SOON: Duration = Duration::from_secs(30);

/// How long nothing is waited for.
const NEVER: Duration = Duration::from_millis(400);

/// The lane most cases use.
const LANE: Lane = Lane { kind: Kind::Upload, arch: Some(Arch::Amd64) };

/// Fails a case that hangs, by name.
pub async fn within_deadline(name: &str, case: impl Future<Output = ()>) {
    assert!(tokio::time::timeout(CASE_MAX, case).await.is_ok(), "{name} took longer than {CASE_MAX:?}");
}

/// One `#[tokio::test]` for each case, in a module of the name given.
#[macro_export]
macro_rules! queue_conformance {
    ($name:ident, $harness:ty) => {
        $crate::queue_conformance!(@cases $name, $harness:
            delivers_what_was_published
            one_consumer_sees_the_order
            a_payload_may_be_anything
            lanes_do_not_mix
            published_survives_reopening
            in_flight_is_bounded
            settling_frees_a_slot
            two_consumers_share_without_overlap
            next_may_be_cancelled
            done_is_final
            continue_replaces_the_payload_and_counts_afresh
            retry_waits_and_counts
            release_returns_at_once_uncounted
            release_after_a_wait_is_uncounted
            new_and_started_are_separate
            a_wait_is_never_cut_short
            a_wait_survives_reopening
            a_settled_job_has_no_second_copy
            defer_keeps_the_place
            what_is_moved_keeps_its_counts
            detached_is_told
            retries_add_up
            crashes_add_up_until_progress
            release_keeps_the_counts
            bury_from_any_tap
            a_lost_consumer_means_counted_redelivery
            a_lost_consumer_cannot_settle_late
            a_dropped_delivery_comes_back_counted
            long_work_is_not_redelivered
            stop_hands_back_what_was_sent_ahead
            stop_lets_what_is_in_hand_settle
            what_crashes_too_often_is_lost
            the_log_keeps_its_order
            the_log_reads_from_a_time_on
            the_log_survives_reopening
            progress_is_not_kept
            a_follower_sees_what_comes
            a_follower_misses_nothing
            the_log_tells_of_some_jobs
            a_long_log_is_read_to_its_end
            the_dead_tell_why
            looking_at_the_dead_changes_nothing
            the_dead_are_judged_one_by_one
            two_judges_do_not_meet
            depths_add_up
            a_pause_lasts_until_it_is_ended
            who_takes_jobs_is_told_that_the_queue_is_up
        );
    };
    (@cases $name:ident, $harness:ty: $($case:ident)+) => {
        mod $name {
            use super::*;
            use $crate::queue::conformance::{self, Harness};

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    conformance::within_deadline(stringify!($case), async {
                        let harness = <$harness as Harness>::fresh().await;
                        conformance::$case(&harness).await;
                        harness.remove().await;
                    })
                    .await;
                }
            )+
        }
    };
}

async fn publish(backend: &Backend, lane: Lane, payloads: &[&str]) {
    for payload in payloads {
        backend.queue.publish(lane, payload, payload.as_bytes()).await.unwrap();
    }
}

async fn consume(backend: &Backend, tap: Tap, in_flight: u16) -> Box<dyn Consumer> {
    backend.queue.consume(tap, in_flight).await.unwrap()
}

async fn take(consumer: &mut Box<dyn Consumer>) -> Delivery {
    tokio::time::timeout(SOON, consumer.next()).await.unwrap_or_else(|_| panic!("no job within {SOON:?}")).unwrap()
}

async fn nothing_for(consumer: &mut Box<dyn Consumer>, time: Duration) {
    if let Ok(delivery) = tokio::time::timeout(time, consumer.next()).await {
        let delivery = delivery.unwrap();
        panic!("{:?} came with {:?}", text(&delivery), delivery.counts);
    }
}

async fn nothing(consumer: &mut Box<dyn Consumer>) {
    nothing_for(consumer, NEVER).await;
}

async fn settle(delivery: Delivery, verdict: Verdict) {
    delivery.settle(verdict).await.unwrap();
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.payload).into_owned()
}

fn numbers(counts: &Counts) -> (u32, u32) {
    (counts.attempt, counts.crashes)
}

/// For what a server only tells after a moment.
async fn eventually<T, F: Future<Output = T>>(what: &str, mut look: impl FnMut() -> F, fits: impl Fn(&T) -> bool)
where
    T: std::fmt::Debug,
{
    let began = tokio::time::Instant::now();
    loop {
        let seen = look().await;
        if fits(&seen) {
            return;
        }
        assert!(began.elapsed() < SOON, "{what}, but there is {seen:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_case_is_forgotten() {
        let sources = [
            include_str!("counting.rs"),
            include_str!("delivery.rs"),
            include_str!("desk.rs"),
            include_str!("logging.rs"),
            include_str!("loss.rs"),
            include_str!("settling.rs"),
        ];
        let list = include_str!("mod.rs").split("@cases").nth(1).unwrap();
        let listed: Vec<&str> = list.split_whitespace().collect();
        for line in sources.iter().flat_map(|source| source.lines()) {
            if let Some(name) = line.strip_prefix("pub async fn ").and_then(|rest| rest.split('(').next()) {
                assert!(listed.contains(&name), "{name} is not in queue_conformance!");
            }
        }
    }
}
