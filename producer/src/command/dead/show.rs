//! `imagewright dead show`

use clap::Args;
use imagewright_common::event::{Event, What};
use imagewright_common::queue::Dead;
use imagewright_common::status::{canonical, message_id};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::list::{self, Row};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{history, report, story};

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright dead show 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55 --json | jq .message.spec")]
pub(crate) struct Options {
    /// A job id, as `imagewright dead list` shows it.
    #[arg(value_name = "JOB")]
    job: String,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    row: Row,
    /// The message: as JSON where it is that, else as text.
    message: Value,
    /// Every attempt that failed, oldest first.
    failures: Vec<Attempt>,
}

#[derive(Serialize)]
struct Attempt {
    at: Timestamp,
    run: u32,
    attempt: u32,
    step: Option<String>,
    error: String,
    request_id: Option<String>,
    worker: String,
}

pub(super) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let id = canonical(&options.job);
    let backend = context.open().await?;
    let dead = backend.desk.dead().await?;
    let Some(dead) = dead.iter().rev().find(|dead| message_id(&dead.payload) == id) else {
        let text = format!("{id} is not among the dead; `imagewright dead list` shows them");
        return Err(Failure { exit: Exit::UnknownJob, text });
    };
    let events = history::of_job(&backend, &id, dead.first_at).await?;
    let shown =
        Shown { row: list::row(dead), message: message(dead), failures: events.iter().filter_map(failure).collect() };
    if context.json {
        report::json(&shown)?;
        return Ok(Exit::Ok);
    }
    let pretty = serde_json::to_string_pretty(&shown.message).unwrap_or_default();
    let mut text = list::table(&[shown.row]).render();
    text.push_str(&format!("\n{}\n\n", pretty.lines().map(report::plain).collect::<Vec<_>>().join("\n")));
    events.iter().for_each(|event| text.push_str(&format!("{}\n", story::line(event))));
    report::result(&text)?;
    Ok(Exit::Ok)
}

fn message(dead: &Dead) -> Value {
    serde_json::from_slice(&dead.payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&dead.payload).into_owned()))
}

fn failure(event: &Event) -> Option<Attempt> {
    let (attempt, step, error, request_id) = match &event.what {
        What::Retrying { attempt, step, error, request_id, .. }
        | What::Failed { attempt, step, error, request_id, .. } => {
            (*attempt, step.clone(), error.clone(), request_id.clone())
        }
        What::Queued
        | What::Started { .. }
        | What::Waiting { .. }
        | What::Succeeded { .. }
        | What::CancelRequested
        | What::Cancelled
        | What::Warning { .. }
        | What::Output { .. }
        | What::Progress { .. } => return None,
    };
    Some(Attempt { at: event.at, run: event.run, attempt, step, error, request_id, worker: event.by.clone() })
}
