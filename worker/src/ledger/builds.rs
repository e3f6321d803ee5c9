//! How builds ended. A copy of a build's message that comes late finds nothing on the cloud once the image was pruned, and
//! would build again.

use std::collections::HashMap;

use imagewright_common::event::{Event, What};
use imagewright_common::job::{Kind, Message};
use jiff::Timestamp;
use uuid::Uuid;

use super::{SWEEP_MIN, WINDOW};
use crate::verdict::Before;

/// The ends of builds, for as long as a copy may come.
#[derive(Default)]
pub(super) struct Builds {
    ended: HashMap<Uuid, End>,
    /// When to look next for what is too old.
    sweep_at: usize,
}

struct End {
    run: u32,
    at: Timestamp,
    how: Before,
}

impl Builds {
    pub(super) fn note(&mut self, job: Uuid, event: &Event) {
        if event.kind.as_deref() != Some(Kind::Build.as_str()) {
            return;
        }
        let how = match &event.what {
            What::Succeeded { .. } | What::Cancelled => Before::Well,
            What::Failed { error, .. } => Before::Badly(error.clone()),
            What::Queued
            | What::Started { .. }
            | What::Waiting { .. }
            | What::Retrying { .. }
            | What::CancelRequested
            | What::Warning { .. }
            | What::Output { .. }
            | What::Progress { .. } => return,
        };
        if self.ended.len() >= self.sweep_at {
            self.ended.retain(|_, end| event.at.duration_since(end.at) < WINDOW);
            self.sweep_at = SWEEP_MIN.max(self.ended.len() * 2);
        }
        // The first end of a run is the one that counts.
        let is_known = self.ended.get(&job).is_some_and(|end| end.run == event.run);
        if !is_known {
            self.ended.insert(job, End { run: event.run, at: event.at, how });
        }
    }

    pub(super) fn end(&self, message: &Message) -> Option<Before> {
        let end = self.ended.get(&message.id).filter(|end| end.run == message.run())?;
        Some(end.how.clone())
    }
}
