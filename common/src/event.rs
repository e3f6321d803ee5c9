//! What is said about a job: the durable log of its transitions, and the progress that only passers-by hear.

mod read;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::job::Message;
use crate::wire::Glimpse;

/// One thing that happened to a job. Carries enough of the job that a reader may start anywhere in the log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// When it happened, by the clock of whoever says so.
    pub at: Timestamp,
    /// The job; `msg-<12 hex>` for a message without a readable id.
    pub id: String,
    /// The job that enqueued it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Uuid>,
    /// Counts up with each requeue from `dead`.
    pub run: u32,
    /// The kind of job, as its message says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The image name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The architecture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    /// The cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cloud: Option<String>,
    /// Who says so: `host/pid` of the process.
    pub by: String,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum What {
    /// It was accepted by the queue.
    Queued,
    /// A worker began a step.
    Started {
        /// Failed attempts before this one.
        attempt: u32,
        /// Nothing else runs in this process meanwhile, because the job is suspected of crashing workers.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        alone: bool,
    },
    /// It waits, which does not count as an attempt: a transfer goes on, a quota is full.
    Waiting {
        /// Not before this.
        until: Timestamp,
        /// For what.
        why: String,
        /// Failed attempts so far.
        attempt: u32,
        /// The step goes on at whoever says this, without the message; how it ends, only the log will tell.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        detached: bool,
    },
    /// An attempt failed; there will be another.
    Retrying {
        /// Not before this.
        until: Timestamp,
        /// What went wrong.
        error: String,
        /// Failed attempts so far, this one included.
        attempt: u32,
        /// What the worker was doing, as in `send` or `verify`.
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// The cloud's request id.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<String>,
    },
    /// It ended as asked.
    Succeeded {
        /// What came of it, by kind.
        result: Value,
    },
    /// It ended otherwise, and lies on `dead`.
    Failed {
        /// Why.
        error: String,
        /// The field of the message at fault, where one is.
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<String>,
        /// Failed attempts.
        attempt: u32,
        /// What the worker was doing when it failed for the last time.
        #[serde(skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// The cloud's request id.
        #[serde(skip_serializing_if = "Option::is_none")]
        request_id: Option<String>,
    },
    /// Somebody wants it cancelled; a worker will, unless it ends first. Changes no state.
    #[serde(rename = "cancel_requested")]
    CancelRequested,
    /// It was cancelled before it ended; what it had made is gone.
    Cancelled,
    /// Something an operator should know; changes no state.
    Warning {
        /// What.
        message: String,
    },
    /// What something that the job runs has written; changes no state.
    Output {
        /// What runs, as in `script`.
        step: String,
        /// The text.
        text: String,
    },
    /// Bytes on their way; never in the log.
    Progress {
        /// Bytes sent so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
        /// Bytes a second, over the last few seconds.
        rate: u64,
    },
}

impl What {
    /// The word of the routing key `event.<kind>.<outcome>`.
    pub fn word(&self) -> &'static str {
        match self {
            What::Queued => "queued",
            What::Started { .. } => "started",
            What::Waiting { .. } => "waiting",
            What::Retrying { .. } => "retrying",
            What::Succeeded { .. } => "succeeded",
            What::Failed { .. } => "failed",
            What::CancelRequested => "cancel_requested",
            What::Cancelled => "cancelled",
            What::Warning { .. } => "warning",
            What::Output { .. } => "output",
            What::Progress { .. } => "progress",
        }
    }

    /// Whether the job's run ended with this.
    pub fn is_terminal(&self) -> bool {
        matches!(self, What::Succeeded { .. } | What::Failed { .. } | What::Cancelled)
    }
}

impl Event {
    /// An event of a job that can be read.
    pub fn of(message: &Message, by: &str, what: What) -> Event {
        let spec = &message.spec;
        Event {
            at: Timestamp::now(),
            id: message.id.to_string(),
            parent: message.parent,
            run: message.run(),
            kind: Some(spec.kind().to_string()),
            name: Some(spec.name().to_string()),
            arch: spec.arch().map(|arch| arch.to_string()),
            cloud: Some(spec.cloud().to_string()),
            by: by.to_owned(),
            what,
        }
    }

    /// An event of a message that could not be read; `id` is its own or the one it was given.
    pub fn of_unreadable(glimpse: &Glimpse, id: String, by: &str, what: What) -> Event {
        Event {
            at: Timestamp::now(),
            id,
            parent: glimpse.parent,
            run: glimpse.run,
            kind: glimpse.kind.clone(),
            name: glimpse.name.clone(),
            arch: glimpse.arch.clone(),
            cloud: glimpse.cloud.clone(),
            by: by.to_owned(),
            what,
        }
    }
}
