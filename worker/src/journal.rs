//! What the worker says about jobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use imagewright_common::event::{Event, What};
use imagewright_common::job::Message;
use imagewright_common::queue::{Log, QueueError};
use imagewright_common::telemetry::process_name;
use uuid::Uuid;

use crate::metrics::Metrics;

/// A job that waits for the same thing is not reported again for this long; well under a day, so that whoever reads
/// the log of a day sees it.
const SAME_WAIT: Duration = Duration::from_secs(3600);

/// Waits remembered at most.
const WAITS_MAX: usize = 10_000;

pub(crate) struct Journal {
    log: Arc<dyn Log>,
    metrics: Arc<Metrics>,
    by: String,
    waits: Mutex<HashMap<Uuid, (String, Instant)>>,
}

impl Journal {
    pub(crate) fn new(log: Arc<dyn Log>, metrics: Arc<Metrics>) -> Journal {
        Journal { log, metrics, by: process_name(), waits: Mutex::new(HashMap::new()) }
    }

    /// Who we are, in events.
    pub(crate) fn by(&self) -> &str {
        &self.by
    }

    /// Write it into the log; returns once it is safe.
    pub(crate) async fn say(&self, message: &Message, what: What) -> Result<(), QueueError> {
        if let What::Waiting { why, .. } = &what {
            if self.said_lately(message.id, why) {
                return Ok(());
            }
        } else {
            self.waits().remove(&message.id);
        }
        self.say_again(message, what).await
    }

    /// The same, even if it was said a moment ago.
    pub(crate) async fn say_again(&self, message: &Message, what: What) -> Result<(), QueueError> {
        tracing::info!(job.id = %message.id, job.kind = %message.spec.kind(), cloud = %message.spec.cloud(), event = what.word(), detail = %detail(&what), "job");
        self.append(&Event::of(message, &self.by, what)).await
    }

    /// The same for a message that could not be read.
    pub(crate) async fn say_event(&self, event: Event) -> Result<(), QueueError> {
        tracing::info!(job.id = event.id, event = event.what.word(), detail = %detail(&event.what), "message");
        self.append(&event).await
    }

    async fn append(&self, event: &Event) -> Result<(), QueueError> {
        self.log.append(event).await?;
        self.metrics.said(event);
        Ok(())
    }

    /// Tell whoever listens, and nobody else.
    pub(crate) async fn announce(&self, message: &Message, what: What) {
        self.log.announce(&Event::of(message, &self.by, what)).await;
    }

    fn waits(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, (String, Instant)>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said_lately(&self, job: Uuid, why: &str) -> bool {
        let mut waits = self.waits();
        if waits.get(&job).is_some_and(|(said, at)| said == why && at.elapsed() < SAME_WAIT) {
            return true;
        }
        if waits.len() >= WAITS_MAX {
            waits.clear();
        }
        waits.insert(job, (why.to_owned(), Instant::now()));
        false
    }
}

fn detail(what: &What) -> String {
    match what {
        What::Queued | What::CancelRequested | What::Cancelled | What::Progress { .. } => String::new(),
        What::Started { attempt, alone } => format!("attempt {}{}", attempt + 1, if *alone { ", alone" } else { "" }),
        What::Waiting { why, .. } => why.clone(),
        What::Retrying { error, .. } | What::Failed { error, .. } => error.clone(),
        What::Succeeded { result } => result.to_string(),
        What::Warning { message } => message.clone(),
        What::Output { step, text } => format!("{} bytes of {step}", text.len()),
    }
}
