//! Which kinds are paused: known before the first job is taken, asked again every few seconds.

use std::sync::Arc;
use std::time::Duration;

use imagewright_common::backoff::jitter;
use imagewright_common::job::Kind;
use imagewright_common::queue::{Desk, QueueError};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::outside::AbortOnDrop;

/// Between two looks, at least; jitter doubles it at most.
const AGAIN: Duration = Duration::from_secs(2);

/// The kinds of which no new job is taken at present.
#[derive(Clone)]
pub(crate) struct Pauses {
    paused: watch::Receiver<Vec<Kind>>,
    _following: Arc<AbortOnDrop>,
}

impl Pauses {
    /// What is paused now, and from now on.
    ///
    /// # Errors
    /// The queue does not tell.
    pub(crate) async fn follow(desk: Arc<dyn Desk>) -> Result<Pauses, QueueError> {
        let (told, paused) = watch::channel(Vec::new());
        tell(&told, desk.paused().await?);
        Ok(Pauses { paused, _following: Arc::new(AbortOnDrop::spawn(follow(desk, told))) })
    }

    /// Returns once `kind` is paused.
    pub(crate) async fn begun(&mut self, kind: Kind) {
        self.until(|paused| paused.contains(&kind)).await;
    }

    /// Returns once `kind` is not paused.
    pub(crate) async fn ended(&mut self, kind: Kind) {
        self.until(|paused| !paused.contains(&kind)).await;
    }

    async fn until(&mut self, is_so: impl Fn(&[Kind]) -> bool) {
        if self.paused.wait_for(|paused| is_so(paused)).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn follow(desk: Arc<dyn Desk>, told: watch::Sender<Vec<Kind>>) {
    loop {
        sleep(jitter(AGAIN)).await;
        match desk.paused().await {
            Ok(paused) => tell(&told, paused),
            Err(error) => tracing::debug!(%error, "cannot tell what is paused; it stays as it was"),
        }
    }
}

fn tell(told: &watch::Sender<Vec<Kind>>, paused: Vec<Kind>) {
    told.send_if_modified(|before| {
        for kind in paused.iter().filter(|kind| !before.contains(kind)) {
            tracing::info!(%kind, "paused: no new jobs are taken; what has begun goes on");
        }
        for kind in before.iter().filter(|kind| !paused.contains(kind)) {
            tracing::info!(%kind, "resumed");
        }
        let is_new = *before != paused;
        *before = paused;
        is_new
    });
}
