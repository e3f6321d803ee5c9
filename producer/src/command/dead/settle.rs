//! `imagewright dead requeue` and `discard`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Args;
use imagewright_common::event::{Event, What};
use imagewright_common::job::{Message, Progress};
use imagewright_common::queue::{Backend, Dead, Fate, Judge};
use imagewright_common::status::{canonical, message_id};
use imagewright_common::wire;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{report, time};

/// Put jobs that were given up back on their lanes, under the same id.
///
/// The job begins a new run: its attempts count from nothing, its history stays, and an image that an earlier run has
/// verified is not uploaded again. A deadline that has passed is left away (24h hold then).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright dead requeue 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55
  imagewright dead requeue --all --deadline 6h")]
pub(crate) struct RequeueOptions {
    #[command(flatten)]
    which: Which,
    /// Give the jobs up if they have not ended by then, such as 90m or 24h.
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    deadline: Option<SignedDuration>,
}

/// Remove jobs that were given up, for good. Their history stays in the log.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright dead discard msg-021fb596db81")]
pub(crate) struct DiscardOptions {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Job ids, as `imagewright dead list` shows them.
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

#[derive(Serialize)]
struct Settled {
    jobs: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    kind: Option<String>,
    cloud: Option<String>,
}

impl Which {
    fn ids(&self) -> BTreeSet<String> {
        self.jobs.iter().map(|id| canonical(id)).collect()
    }
}

pub(super) async fn requeue(context: &Context, options: RequeueOptions) -> Result<Exit, Failure> {
    let backend = context.open().await?;
    let now = Timestamp::now();
    let deadline = match options.deadline {
        Some(after) => Some(now.checked_add(after).map_err(|_| Failure::usage("--deadline is beyond all time"))?),
        None => None,
    };
    let (ids, refused) = (options.which.ids(), Arc::new(Mutex::new(Vec::new())));
    let (all, noted) = (options.which.all, refused.clone());
    let judge = move |dead: &Dead| {
        let id = message_id(&dead.payload);
        if !all && !ids.contains(&id) {
            return Fate::Keep;
        }
        match again(&dead.payload, deadline, now) {
            Ok(fate) => fate,
            Err(reason) => {
                let mut refused = noted.lock().unwrap_or_else(PoisonError::into_inner);
                if !refused.iter().any(|(other, _)| *other == id) {
                    refused.push((id, reason));
                }
                Fate::Keep
            }
        }
    };
    let settled = backend.desk.judge_dead(Box::new(judge)).await?;
    for dead in &settled {
        if let Ok(message) = next_run(&dead.payload, deadline, now) {
            tell(&backend, &Event::of(&message, &context.by, What::Queued)).await;
        }
    }
    let refused = std::mem::take(&mut *refused.lock().unwrap_or_else(PoisonError::into_inner));
    finish(context, &options.which, &settled, &refused)
}

pub(super) async fn discard(context: &Context, options: DiscardOptions) -> Result<Exit, Failure> {
    let backend = context.open().await?;
    let (ids, all) = (options.which.ids(), options.which.all);
    let judge: Judge =
        Box::new(move |dead| if all || ids.contains(&message_id(&dead.payload)) { Fate::Discard } else { Fate::Keep });
    let settled = backend.desk.judge_dead(judge).await?;
    for dead in &settled {
        let what = What::Warning { message: "discarded from the dead".to_owned() };
        let (glimpse, id) = (wire::glimpse(&dead.payload), message_id(&dead.payload));
        tell(&backend, &Event::of_unreadable(&glimpse, id, &context.by, what)).await;
    }
    finish(context, &options.which, &settled, &[])
}

async fn tell(backend: &Backend, event: &Event) {
    if let Err(error) = backend.log.append(event).await {
        tracing::warn!(job.id = event.id, %error, "it was done, but the log does not say so");
    }
}

/// The job as it goes back, or why no worker could read it.
fn again(payload: &[u8], deadline: Option<Timestamp>, now: Timestamp) -> Result<Fate, String> {
    let message = next_run(payload, deadline, now)?;
    let payload = wire::encode(&message).map_err(|error| error.to_string())?;
    Ok(Fate::Requeue { lane: message.spec.lane(), id: message.id.to_string(), payload })
}

fn next_run(payload: &[u8], deadline: Option<Timestamp>, now: Timestamp) -> Result<Message, String> {
    let mut message = wire::decode(payload, now).map_err(|error| error.to_string())?;
    let run = message.run().saturating_add(1);
    message.progress = Some(Progress { run, ..message.progress.unwrap_or_default() });
    message.deadline = deadline.or_else(|| message.deadline.filter(|deadline| *deadline > now));
    Ok(message)
}

/// Say what was done, and what was not.
fn finish(context: &Context, which: &Which, settled: &[Dead], refused: &[(String, String)]) -> Result<Exit, Failure> {
    let rows: Vec<Row> = settled.iter().map(row).collect();
    let done: BTreeSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
    let unknown: Vec<String> = which
        .ids()
        .into_iter()
        .filter(|id| !done.contains(id.as_str()) && !refused.iter().any(|(other, _)| other == id))
        .collect();
    for (id, reason) in refused {
        report::note(&format!("{id} stays: no worker could read it ({reason}); publish it anew and discard this one"));
    }
    if context.json {
        report::json(&Settled { jobs: rows })?;
    } else {
        report::result(&rows.iter().map(|row| format!("{}\n", row.id)).collect::<String>())?;
    }
    if !unknown.is_empty() {
        let text = format!("not among the dead: {}; `imagewright dead list` shows them", unknown.join(", "));
        return Err(Failure { exit: Exit::UnknownJob, text });
    }
    match refused.len() {
        0 => Ok(Exit::Ok),
        count => Err(Failure::usage(format!("{count} of the dead cannot be requeued"))),
    }
}

fn row(dead: &Dead) -> Row {
    let glimpse = wire::glimpse(&dead.payload);
    Row { id: message_id(&dead.payload), kind: glimpse.kind, cloud: glimpse.cloud }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = r#"{"version":1,"id":"0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55","deadline":"2026-11-23T10:00:00Z",
        "spec":{"kind":"prune","name":"n","cloud":"c","keep":2},"progress":{"run":3,"later":true}}"#;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_requeued_job_keeps_all_but_its_run_and_a_deadline_that_has_passed() {
        let before = next_run(JOB.as_bytes(), None, at("2026-11-23T09:00:00Z")).unwrap();
        assert_eq!((before.run(), before.deadline), (4, Some(at("2026-11-23T10:00:00Z"))));
        assert_eq!(before.progress.unwrap().rest.len(), 1);
        let after = next_run(JOB.as_bytes(), None, at("2026-11-23T11:00:00Z")).unwrap();
        assert_eq!((after.id.to_string().as_str(), after.deadline), ("0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55", None));
        let given = next_run(JOB.as_bytes(), Some(at("2026-11-23T12:00:00Z")), at("2026-11-23T11:00:00Z")).unwrap();
        assert_eq!(given.deadline, Some(at("2026-11-23T12:00:00Z")));
    }

    #[test]
    fn what_no_worker_can_read_is_not_requeued() {
        assert!(again(b"{", None, Timestamp::UNIX_EPOCH).unwrap_err().contains("not JSON"));
    }
}
