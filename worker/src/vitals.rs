//! How the process fares: what `/healthz`, `/readyz` and the service manager are told.

use std::sync::{Arc, OnceLock};

use imagewright_common::queue::Backend;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::steps::Tools;

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The queue is not open yet.
    Starting,
    /// Jobs are taken.
    Taking,
    /// Told to stop, or drained.
    Stopping,
}

/// What there is once the queue is open.
pub(crate) struct Opened {
    pub(crate) backend: Backend,
    pub(crate) tools: Arc<Tools>,
    /// The tasks that take jobs. None ends before the process is told to stop.
    pub(crate) takers: Vec<AbortHandle>,
}

/// How the process fares.
pub(crate) struct Vitals {
    phase: watch::Sender<Phase>,
    opened: OnceLock<Opened>,
}

impl Vitals {
    pub(crate) fn new() -> Vitals {
        Vitals { phase: watch::Sender::new(Phase::Starting), opened: OnceLock::new() }
    }

    /// The queue is open and jobs are taken from now on.
    pub(crate) fn opened(&self, opened: Opened) {
        if self.opened.set(opened).is_ok() {
            self.phase.send_replace(Phase::Taking);
        }
    }

    /// No more jobs are taken.
    pub(crate) fn stopping(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// None while the queue was never open.
    pub(crate) fn open(&self) -> Option<&Opened> {
        self.opened.get()
    }

    /// Whether the queue can be used.
    pub(crate) fn is_connected(&self) -> bool {
        self.open().is_some_and(|opened| *opened.backend.up.borrow())
    }

    /// Whether this process does its work or can still come to it; else why not, in one line.
    pub(crate) fn health(&self) -> Result<(), &'static str> {
        let ended = |opened: &Opened| opened.takers.iter().any(AbortHandle::is_finished);
        match *self.phase.borrow() {
            Phase::Taking if self.open().is_some_and(ended) => Err("a task that takes jobs has ended"),
            Phase::Starting | Phase::Taking | Phase::Stopping => Ok(()),
        }
    }

    /// Whether jobs are taken now; else why not, in one line.
    pub(crate) fn readiness(&self) -> Result<(), &'static str> {
        match *self.phase.borrow() {
            Phase::Starting => Err("waiting for the queue"),
            Phase::Taking if self.is_connected() => Ok(()),
            Phase::Taking => Err("the queue is away; what runs goes on"),
            Phase::Stopping => Err("stopping"),
        }
    }

    /// Ends when [`Vitals::readiness`] may have changed since `seen` was last asked.
    pub(crate) async fn changed(&self, seen: &mut Seen) {
        if seen.up.is_none() {
            seen.up = self.open().map(|opened| opened.backend.up.clone());
        }
        let up = async {
            let Some(up) = &mut seen.up else { return std::future::pending().await };
            if up.changed().await.is_err() {
                std::future::pending().await
            }
        };
        tokio::select! {
            _ = seen.phase.changed() => {}
            () = up => {}
        }
    }

    /// What has been seen so far: nothing.
    pub(crate) fn unseen(&self) -> Seen {
        Seen { phase: self.phase.subscribe(), up: None }
    }
}

/// What somebody has seen of the changes. See [`Vitals::changed`].
pub(crate) struct Seen {
    phase: watch::Receiver<Phase>,
    up: Option<watch::Receiver<bool>>,
}
