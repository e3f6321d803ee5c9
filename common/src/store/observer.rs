//! What a step is doing, for whoever reports it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How far a job has come in this process; shared with whoever reports it.
#[derive(Default)]
pub struct Observer {
    sent: AtomicU64,
    total: AtomicU64,
    steps: Mutex<Steps>,
    meter: Option<Box<dyn Fn(u64) + Send + Sync>>,
}

#[derive(Debug, Default)]
struct Steps {
    current: Option<(&'static str, Instant)>,
    last: Option<&'static str>,
    done: Vec<(&'static str, Duration)>,
}

impl Observer {
    /// One that tells `meter` of every chunk as it is sent, in bytes.
    pub fn metered(meter: impl Fn(u64) + Send + Sync + 'static) -> Observer {
        Observer { meter: Some(Box::new(meter)), ..Observer::default() }
    }

    /// Bytes sent, and bytes in all; zero of zero before the stream begins.
    pub fn progress(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// The step that is under way, else the last one.
    pub fn step(&self) -> Option<&'static str> {
        self.steps().last
    }

    /// The steps that ended since this was last asked, with the time each took.
    pub fn take_done(&self) -> Vec<(&'static str, Duration)> {
        std::mem::take(&mut self.steps().done)
    }

    /// A step begins, and ends the one before.
    pub fn enter(&self, step: &'static str) {
        let mut steps = self.steps();
        steps.end();
        steps.current = Some((step, Instant::now()));
        steps.last = Some(step);
    }

    /// The last step has ended.
    pub fn leave(&self) {
        self.steps().end();
    }

    pub(super) fn begin_transfer(&self, total: u64) {
        self.sent.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        if let Some(meter) = &self.meter {
            meter(bytes);
        }
    }

    /// Each holder makes whole assignments only.
    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Steps {
    fn end(&mut self) {
        if let Some((step, since)) = self.current.take() {
            self.done.push((step, since.elapsed()));
        }
    }
}
