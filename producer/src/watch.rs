//! A tree of jobs as it comes on: which events concern it, what is new in them, and how it ends. Pure.

use std::collections::HashSet;

use imagewright_common::event::{Event, What};
use imagewright_common::status::{Fold, JobStatus, State};
use jiff::Timestamp;
use serde_json::Value;

use crate::exit::Exit;
use crate::report;

/// Some jobs and all that they lead to.
pub(crate) struct Watch {
    fold: Fold,
    roots: Vec<String>,
    members: HashSet<String>,
    /// Everything that was said from then on is watched, not a tree.
    all_from: Option<Timestamp>,
}

/// What an event said that was worth showing.
#[derive(Debug, PartialEq)]
pub(crate) enum News {
    /// A job came to stand elsewhere.
    Turn(JobStatus),
    /// Bytes went on.
    Progress(JobStatus),
    /// Something an operator should know.
    Warning(JobStatus, String),
}

/// How the tree ended.
#[derive(Debug, PartialEq)]
pub(crate) struct Ending {
    pub(crate) exit: Exit,
    /// One line for each job that did not succeed.
    pub(crate) lines: Vec<String>,
}

impl Watch {
    pub(crate) fn new(roots: Vec<String>) -> Watch {
        Watch { fold: Fold::default(), members: roots.iter().cloned().collect(), roots, all_from: None }
    }

    /// Watch whatever is said from `from` on, for ever.
    pub(crate) fn everything(from: Timestamp) -> Watch {
        Watch { all_from: Some(from), ..Watch::new(Vec::new()) }
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.all_from.is_some()
    }

    /// Whether the event is about what is watched.
    pub(crate) fn concerns(&self, event: &Event) -> bool {
        let is_child = || event.parent.is_some_and(|parent| self.members.contains(&parent.to_string()));
        match self.all_from {
            Some(from) => event.at >= from,
            None => self.members.contains(&event.id) || is_child(),
        }
    }

    /// Take in an event of the log; none when it says nothing new about the tree.
    pub(crate) fn take(&mut self, event: &Event) -> Option<News> {
        if !self.concerns(event) {
            return None;
        }
        self.members.insert(event.id.clone());
        let before = self.fold.state(&event.id);
        self.fold.apply(event);
        let job = self.fold.get(&event.id);
        self.members.extend(job.children.iter().cloned());
        match &event.what {
            What::Progress { .. } => job.transfer.is_some().then_some(News::Progress(job)),
            What::Output { .. } => None,
            What::Warning { message } => Some(News::Warning(job, message.clone())),
            What::CancelRequested => {
                (!job.state.is_terminal()).then(|| News::Warning(job, "asked to be cancelled".to_owned()))
            }
            What::Queued => (before == State::Unknown).then_some(News::Turn(job)),
            What::Started { .. }
            | What::Waiting { .. }
            | What::Retrying { .. }
            | What::Succeeded { .. }
            | What::Failed { .. }
            | What::Cancelled => (!before.is_terminal() || !job.state.is_terminal()).then_some(News::Turn(job)),
        }
    }

    /// Whether every job of the tree has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.all_from.is_none() && self.members.iter().all(|id| self.fold.state(id).is_terminal())
    }

    /// Whether nothing has happened to any job since it was queued.
    pub(crate) fn is_untouched(&self) -> bool {
        self.all_from.is_none()
            && self.members.iter().all(|id| matches!(self.fold.state(id), State::Unknown | State::Queued))
    }

    /// Every job of the tree, children behind their parents.
    pub(crate) fn jobs(&self) -> Vec<JobStatus> {
        tree(&self.fold, &self.roots).into_iter().map(|(_, job)| job).collect()
    }

    pub(crate) fn roots(&self) -> &[String] {
        &self.roots
    }

    /// A failed prune that an upload led to is no failure of what was asked.
    pub(crate) fn ending(&self) -> Ending {
        let mut ending = Ending { exit: Exit::Ok, lines: Vec::new() };
        for job in self.jobs() {
            if !matches!(job.state, State::Failed | State::Cancelled) {
                continue;
            }
            let reason = job.error.as_deref().map(|error| format!(": {error}")).unwrap_or_default();
            let said = format!("{} {}{reason}", label(&job), job.state);
            if job.kind.as_deref() == Some("prune") && !self.roots.contains(&job.id) {
                ending.lines.push(format!(
                    "warning: {said}; the image is there, older ones may be too: a later prune tries again"
                ));
            } else {
                ending.exit = Exit::JobFailed;
                let id = &job.id;
                let next = if job.state == State::Failed {
                    format!("`imagewright dead show {id}` tells more")
                } else {
                    format!("`imagewright log {id}` tells its story")
                };
                ending.lines.push(format!("error: {said}; {next}"));
            }
        }
        ending
    }
}

/// Jobs with those they led to behind them, and how deep each stands. A job that is asked for twice stands once.
pub(crate) fn tree(fold: &Fold, roots: &[String]) -> Vec<(usize, JobStatus)> {
    let mut seen = HashSet::new();
    let mut rows = Vec::new();
    let mut stack: Vec<(usize, String)> = roots.iter().rev().map(|id| (0, id.clone())).collect();
    while let Some((depth, id)) = stack.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let job = fold.get(&id);
        stack.extend(job.children.iter().rev().map(|child| (depth + 1, child.clone())));
        rows.push((depth, job));
    }
    rows
}

/// A job as a line calls it.
pub(crate) fn label(job: &JobStatus) -> String {
    let kind = report::word(job.kind.as_deref());
    let name = report::word(job.name.as_deref());
    let arch = job.arch.as_deref().map(|arch| format!(" {arch}")).unwrap_or_default();
    format!("{kind} {name}{arch} on {} ({})", report::word(job.cloud.as_deref()), job.id)
}

/// Where a job stands, with what is worth saying about it.
pub(crate) fn standing(job: &JobStatus) -> String {
    let state = job.state;
    let again = if job.attempts > 1 { format!(", attempt {}", job.attempts) } else { String::new() };
    match state {
        State::Queued | State::Unknown | State::Cancelled => state.to_string(),
        State::Running => format!("{state}{again}"),
        State::Waiting => match (&job.waits_for, &job.error) {
            (Some(why), _) => format!("{state}: {why}"),
            (None, Some(error)) => format!("{state} to try again after: {error}"),
            (None, None) => state.to_string(),
        },
        State::Succeeded => format!("{state}{}", job.result.as_ref().map(result).unwrap_or_default()),
        State::Failed => match &job.error {
            Some(error) => format!("{state}: {error}"),
            None => state.to_string(),
        },
    }
}

fn result(result: &Value) -> String {
    let count = |key: &str| result.get(key).and_then(Value::as_array).map(Vec::len);
    match (result.get("image_id").and_then(Value::as_str), count("kept"), count("deleted")) {
        (Some(image), _, _) => format!(", image {image}"),
        (None, Some(kept), Some(deleted)) => format!(", kept {kept}, deleted {deleted}"),
        (None, _, _) => String::new(),
    }
}

#[cfg(test)]
mod tests;
