//! Bytes into an image. While they flow the image is touched regularly, so that nobody takes it for dead; a stream that
//! stalls is given up, however long it may take otherwise.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use uuid::Uuid;

use super::{Observer, StoreError, stamp};
use crate::openstack::{CloudError, CloudErrorKind, Glance};
use crate::source::{Digests, Opened};

/// Time between touches of the image.
const BEAT: Duration = Duration::from_secs(15);

/// A transfer that sends nothing for this long is given up.
const STALL: Duration = Duration::from_secs(60);

/// How long the cloud may take to store what it has received in full.
const STORE_TIME: Duration = Duration::from_secs(900);

/// How a transfer ended, where it did not fail.
pub(super) enum Sent {
    /// Everything was accepted; these are the digests of what was sent, as far as they were computed.
    Whole(Digests),
    /// The answer says nothing about the image: look at it. Should nothing have been stored, this was why.
    Unclear(CloudError),
    /// The image is gone: another worker took over, or somebody deleted it.
    TakenOver,
}

/// Send everything that `opened` has into the image `id`.
pub(super) async fn send(
    glance: &Glance,
    id: Uuid,
    opened: Opened,
    observer: &Arc<Observer>,
) -> Result<Sent, StoreError> {
    let length = opened.length;
    let (stream, ticket) = opened.into_stream();
    observer.begin_transfer(length);
    let counter = observer.clone();
    let counted = stream.inspect(move |chunk| {
        if let Ok(bytes) = chunk {
            counter.add_sent(bytes.len() as u64);
        }
    });
    let id = id.to_string();
    let put = glance.upload(&id, length, reqwest::Body::wrap_stream(counted));
    let answer = tokio::select! {
        answer = put => answer,
        () = beat(glance, &id) => return Ok(Sent::TakenOver),
        stalled = stall(observer) => return Err(stalled),
    };
    match answer {
        Ok(()) => Ok(Sent::Whole(ticket.finish().await?)),
        Err(error) => {
            // A source that failed is the cause, whatever the cloud then said.
            if let Some(cause) = ticket.failure() {
                return Err(cause.into());
            }
            match error.kind {
                CloudErrorKind::NotFound => Ok(Sent::TakenOver),
                CloudErrorKind::Gone | CloudErrorKind::Conflict | CloudErrorKind::Server => Ok(Sent::Unclear(error)),
                CloudErrorKind::Unreachable
                | CloudErrorKind::Busy
                | CloudErrorKind::Forbidden
                | CloudErrorKind::Credentials
                | CloudErrorKind::Rejected
                | CloudErrorKind::Protocol
                | CloudErrorKind::Config => Err(error.into()),
            }
        }
    }
}

/// Touch the image until it is gone. That a touch fails otherwise tells nothing.
async fn beat(glance: &Glance, id: &str) {
    let mut ticks = interval_at(Instant::now() + BEAT, BEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match glance.set_properties(id, &[(stamp::BEAT, &Timestamp::now().to_string())]).await {
            Ok(_) => {}
            Err(error) if matches!(error.kind, CloudErrorKind::NotFound | CloudErrorKind::Gone) => return,
            Err(error) => tracing::debug!(%error, "could not touch the image"),
        }
    }
}

/// Wait until nothing has moved for too long.
async fn stall(observer: &Observer) -> StoreError {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        sleep(Duration::from_secs(1)).await;
        let (sent, total) = observer.progress();
        if sent != seen {
            (seen, since) = (sent, Instant::now());
        }
        let limit = if sent < total { STALL } else { STORE_TIME };
        if since.elapsed() > limit {
            return StoreError::Transient(format!(
                "transfer stalled: {sent} of {total} bytes, nothing for {} s",
                limit.as_secs()
            ));
        }
    }
}
