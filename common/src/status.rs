//! What has become of each job: the log of events folded into one state per job.
//!
//! The fold may start anywhere in the log. The first terminal event of a (job, run) in log order is its outcome; a higher
//! run opens the job again. It keeps one small record per job, never an event.

mod fold;
mod history;
#[cfg(test)]
mod tests;

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::wire;
pub use fold::Fold;
pub use history::{Cut, oldest};

/// Where a job stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Accepted by the queue, not yet taken.
    Queued,
    /// A worker is at it.
    Running,
    /// Put aside until later: a transfer goes on, a quota is full, an attempt failed.
    Waiting,
    /// Ended as asked.
    Succeeded,
    /// Ended otherwise; it lies on `dead`.
    Failed,
    /// Cancelled before it ended.
    Cancelled,
    /// The part of the log that was read does not tell.
    #[default]
    Unknown,
}

/// What is known of one job; serialised as `status --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct JobStatus {
    /// The job.
    pub id: String,
    /// The kind of job.
    pub kind: Option<String>,
    /// The image name.
    pub name: Option<String>,
    /// The architecture.
    pub arch: Option<String>,
    /// The cloud.
    pub cloud: Option<String>,
    /// Where it stands.
    pub state: State,
    /// Attempts begun, in this run.
    pub attempts: u32,
    /// The earliest that is known of it.
    pub created_at: Option<Timestamp>,
    /// When it last changed.
    pub updated_at: Option<Timestamp>,
    /// Why it failed, or why its last attempt did.
    pub error: Option<String>,
    /// What came of it.
    pub result: Option<Value>,
    /// The job that enqueued it.
    pub parent: Option<String>,
    /// The jobs it enqueued.
    pub children: Vec<String>,
    /// What it waits for.
    #[serde(skip)]
    pub waits_for: Option<String>,
    /// Somebody wants it cancelled, and it has not ended yet.
    #[serde(skip)]
    pub cancel_requested: bool,
    /// The run that all this is about.
    #[serde(skip)]
    pub run: u32,
    /// How far its transfer is; heard live only.
    #[serde(skip)]
    pub transfer: Option<Transfer>,
}

/// How far a transfer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes sent so far.
    pub bytes: u64,
    /// Bytes in all.
    pub total: u64,
    /// Bytes a second, over the last few seconds.
    pub rate: u64,
}

/// A job that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished<'a> {
    /// The job.
    pub id: &'a str,
    /// The kind of job.
    pub kind: Option<&'a str>,
    /// The architecture.
    pub arch: Option<&'a str>,
    /// Where it stands.
    pub state: State,
    /// When it last said anything.
    pub updated_at: Timestamp,
}

impl State {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Running => "running",
            State::Waiting => "waiting",
            State::Succeeded => "succeeded",
            State::Failed => "failed",
            State::Cancelled => "cancelled",
            State::Unknown => "unknown",
        }
    }

    /// Whether the job has ended.
    pub fn is_terminal(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The id that a message is known by: its own, else `msg-` and the first 12 hexadecimal digits of its SHA-256.
pub fn message_id(payload: &[u8]) -> String {
    wire::glimpse(payload).id.map_or_else(
        || {
            let digest = Sha256::digest(payload);
            digest.iter().take(6).fold("msg-".to_owned(), |id, byte| format!("{id}{byte:02x}"))
        },
        |id| id.to_string(),
    )
}

/// A job id as the log spells it: UUIDs have several spellings.
pub fn canonical(id: &str) -> String {
    uuid::Uuid::parse_str(id).map_or_else(|_| id.to_owned(), |id| id.to_string())
}
