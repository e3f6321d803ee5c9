//! The fold itself.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{JobStatus, State, Transfer, Unfinished};
use crate::event::{Event, What};

/// The state of every job that the events so far tell of.
#[derive(Default)]
pub struct Fold {
    places: HashMap<Arc<str>, usize>,
    jobs: Vec<Job>,
    /// Kinds, names, architectures and clouds: few words, said a million times.
    words: HashSet<Arc<str>>,
}

/// One job. It may be known by its children only; then nothing was `seen` of itself.
#[derive(Default)]
struct Job {
    id: Arc<str>,
    seen: Option<Seen>,
    kind: Option<Arc<str>>,
    name: Option<Arc<str>>,
    arch: Option<Arc<str>>,
    cloud: Option<Arc<str>>,
    parent: Option<usize>,
    children: Vec<usize>,
    state: State,
    run: u32,
    attempts: u32,
    error: Option<Box<str>>,
    waits_for: Option<Box<str>>,
    cancel_requested: bool,
    /// As text: parsed, it takes several times the room.
    result: Option<Box<str>>,
    transfer: Option<Transfer>,
}

#[derive(Clone, Copy)]
struct Seen {
    first: Timestamp,
    last: Timestamp,
}

impl Fold {
    /// Take in the next event of the log, or live progress.
    pub fn apply(&mut self, event: &Event) {
        if let What::Progress { bytes, total, rate } = event.what {
            if let Some(job) = self.places.get(event.id.as_str()).and_then(|place| self.jobs.get_mut(*place)) {
                job.progress(event.run, Transfer { bytes, total, rate });
            }
            return;
        }
        let place = self.place(&event.id);
        self.describe(place, event);
        if let Some(parent) = event.parent {
            let parent = self.place(&parent.to_string());
            self.adopt(parent, place);
        }
        let Some(job) = self.jobs.get_mut(place) else { return };
        job.apply(event);
        if let What::Succeeded { result } = &event.what {
            for child in
                result.get("children").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
            {
                let child = self.place(child);
                self.adopt(place, child);
            }
        }
    }

    /// What is known of one job; its state is `unknown` when nothing is.
    pub fn get(&self, id: &str) -> JobStatus {
        match self.places.get(id).and_then(|place| self.jobs.get(*place)) {
            Some(job) => self.report(job),
            None => JobStatus { id: id.to_owned(), ..JobStatus::default() },
        }
    }

    /// Where one job stands.
    pub fn state(&self, id: &str) -> State {
        self.places.get(id).and_then(|place| self.jobs.get(*place)).map_or(State::Unknown, |job| job.state)
    }

    /// Every job that the log tells of, in the order of first mention.
    pub fn jobs(&self) -> impl Iterator<Item = JobStatus> + '_ {
        self.jobs.iter().filter(|job| job.seen.is_some()).map(|job| self.report(job))
    }

    /// The jobs that have not ended.
    pub fn unfinished(&self) -> impl Iterator<Item = Unfinished<'_>> {
        self.jobs.iter().filter(|job| !job.state.is_terminal() && job.state != State::Unknown).filter_map(|job| {
            let updated_at = job.seen?.last;
            let (kind, arch) = (job.kind.as_deref(), job.arch.as_deref());
            Some(Unfinished { id: &job.id, kind, arch, state: job.state, updated_at })
        })
    }

    #[cfg(test)]
    pub(super) fn words(&self) -> usize {
        self.words.len()
    }

    fn place(&mut self, id: &str) -> usize {
        if let Some(place) = self.places.get(id) {
            return *place;
        }
        let id: Arc<str> = id.into();
        self.places.insert(Arc::clone(&id), self.jobs.len());
        self.jobs.push(Job { id, ..Job::default() });
        self.jobs.len() - 1
    }

    fn describe(&mut self, place: usize, event: &Event) {
        let Some(job) = self.jobs.get_mut(place) else { return };
        let said = [
            (&mut job.kind, &event.kind),
            (&mut job.name, &event.name),
            (&mut job.arch, &event.arch),
            (&mut job.cloud, &event.cloud),
        ];
        for (known, word) in said {
            if let (None, Some(word)) = (&known, word) {
                let shared = self.words.get(word.as_str()).cloned().unwrap_or_else(|| {
                    let shared: Arc<str> = word.as_str().into();
                    self.words.insert(Arc::clone(&shared));
                    shared
                });
                *known = Some(shared);
            }
        }
    }

    fn adopt(&mut self, parent: usize, child: usize) {
        match self.jobs.get_mut(child) {
            Some(job) if job.parent.is_none() && parent != child => job.parent = Some(parent),
            Some(_) | None => return,
        }
        if let Some(job) = self.jobs.get_mut(parent) {
            job.children.push(child);
        }
    }

    fn report(&self, job: &Job) -> JobStatus {
        let own = |word: &Option<Arc<str>>| word.as_deref().map(str::to_owned);
        let id = |place: &usize| self.jobs.get(*place).map(|job| job.id.to_string());
        JobStatus {
            id: job.id.to_string(),
            kind: own(&job.kind),
            name: own(&job.name),
            arch: own(&job.arch),
            cloud: own(&job.cloud),
            state: job.state,
            attempts: job.attempts,
            created_at: job.seen.map(|seen| seen.first),
            updated_at: job.seen.map(|seen| seen.last),
            error: job.error.as_deref().map(str::to_owned),
            result: job.result.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            parent: job.parent.as_ref().and_then(id),
            children: job.children.iter().filter_map(id).collect(),
            waits_for: job.waits_for.as_deref().map(str::to_owned),
            cancel_requested: job.cancel_requested && !job.state.is_terminal(),
            run: job.run,
            transfer: job.transfer,
        }
    }
}

impl Job {
    fn progress(&mut self, run: u32, transfer: Transfer) {
        if run == self.run && !self.state.is_terminal() {
            self.transfer = Some(transfer);
        }
    }

    fn apply(&mut self, event: &Event) {
        match event.run.cmp(&self.run) {
            Ordering::Less => return,
            Ordering::Equal => {}
            // A request is no proof that there is such a run.
            Ordering::Greater if matches!(event.what, What::CancelRequested) => return,
            Ordering::Greater => self.reopen(event.run),
        }
        let seen = self.seen.unwrap_or(Seen { first: event.at, last: event.at });
        if self.state.is_terminal() {
            self.seen = Some(Seen { first: seen.first.min(event.at), ..seen });
            return;
        }
        // Clocks of several machines: time never runs backwards in a report.
        self.seen = Some(Seen { first: seen.first.min(event.at), last: seen.last.max(event.at) });
        self.turn(&event.what);
    }

    fn reopen(&mut self, run: u32) {
        self.run = run;
        self.state = State::Queued;
        self.attempts = 0;
        self.error = None;
        self.waits_for = None;
        self.cancel_requested = false;
        self.result = None;
        self.transfer = None;
    }

    fn turn(&mut self, what: &What) {
        match what {
            // Whoever enqueues says so after the queue took the job: a worker may have begun by then.
            What::Queued => {
                if self.state == State::Unknown {
                    self.state = State::Queued;
                }
            }
            What::Started { attempt, .. } => {
                self.state = State::Running;
                self.waits_for = None;
                self.attempts = self.attempts.max(attempt.saturating_add(1));
            }
            What::Waiting { why, attempt, .. } => {
                self.state = State::Waiting;
                self.waits_for = Some(why.as_str().into());
                self.error = None;
                self.attempts = self.attempts.max(*attempt);
            }
            What::Retrying { error, attempt, request_id, .. } => {
                self.state = State::Waiting;
                self.waits_for = None;
                self.transfer = None;
                self.error = Some(told(error, None, request_id.as_deref()));
                self.attempts = self.attempts.max(*attempt);
            }
            What::Succeeded { result } => {
                self.end(State::Succeeded);
                self.error = None;
                self.result = Some(result.to_string().into());
            }
            What::Failed { error, field, attempt, request_id, .. } => {
                self.end(State::Failed);
                self.error = Some(told(error, field.as_deref(), request_id.as_deref()));
                self.attempts = self.attempts.max(*attempt);
            }
            What::Cancelled => {
                self.end(State::Cancelled);
                self.error = None;
            }
            What::CancelRequested => self.cancel_requested = true,
            What::Warning { .. } | What::Output { .. } | What::Progress { .. } => {}
        }
    }

    fn end(&mut self, state: State) {
        self.state = state;
        self.waits_for = None;
        self.transfer = None;
    }
}

/// An error with the field at fault before it and the cloud's request id behind it, unless it names them already.
fn told(error: &str, field: Option<&str>, request_id: Option<&str>) -> Box<str> {
    let mut text = error.to_owned();
    if let Some(field) = field.filter(|field| !error.contains(field)) {
        text = format!("{field}: {text}");
    }
    if let Some(request_id) = request_id.filter(|id| !error.contains(id)) {
        text = format!("{text} (request {request_id})");
    }
    text.into()
}
