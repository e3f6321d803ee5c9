//! Draining: to know that nothing of ours is queued, waiting or running anywhere.

use std::time::Duration;

use imagewright_common::job::{Kind, Lane};
use imagewright_common::queue::{Backend, QueueError};
use imagewright_common::status::Fold;
use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

/// A waiting job says so at least this often, so what is silent for longer has ended.
const LOG_WINDOW: SignedDuration = SignedDuration::from_hours(25);

const PAUSE: Duration = Duration::from_millis(300);

/// Returns once our lanes are empty, and the log, read after that, shows no unfinished job of `kinds` and `archs`.
pub(crate) async fn drained(backend: &Backend, kinds: &[Kind], lanes: &[Lane]) -> Result<(), QueueError> {
    loop {
        match is_drained(backend, kinds, lanes).await {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error @ QueueError::Refused(_)) => return Err(error),
            Err(error) => tracing::warn!(%error, "cannot tell whether all is done"),
        }
        sleep(PAUSE).await;
    }
}

async fn is_drained(backend: &Backend, kinds: &[Kind], lanes: &[Lane]) -> Result<bool, QueueError> {
    Ok(lanes_are_empty(backend, lanes).await? && nothing_unfinished(backend, kinds, lanes).await?)
}

async fn lanes_are_empty(backend: &Backend, lanes: &[Lane]) -> Result<bool, QueueError> {
    let ours = |queue: &str| {
        queue.ends_with(".lost")
            || lanes
                .iter()
                .any(|lane| queue.ends_with(&format!(".{lane}")) || queue.ends_with(&format!(".{lane}.started")))
    };
    Ok(backend.desk.depths().await?.iter().all(|depth| depth.ready == 0 || !ours(&depth.queue)))
}

async fn nothing_unfinished(backend: &Backend, kinds: &[Kind], lanes: &[Lane]) -> Result<bool, QueueError> {
    let since = Timestamp::now().saturating_sub(LOG_WINDOW).unwrap_or(Timestamp::MIN);
    let fold = Fold::of_log(&*backend.log, since).await?;
    let ours = |kind: &str, arch: Option<&str>| {
        kinds.iter().any(|known| {
            known.as_str() == kind
                && (!known.per_arch()
                    || lanes.iter().any(|lane| lane.kind == *known && lane.arch.map(|arch| arch.as_str()) == arch))
        })
    };
    Ok(!fold.unfinished().any(|job| job.kind.is_some_and(|kind| ours(kind, job.arch))))
}
