//! `imagewright log`

use clap::Args;
use imagewright_common::event::Event;
use imagewright_common::queue::Until;
use imagewright_common::status::{Fold, State, canonical};
use jiff::Timestamp;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{history, report, story};

/// Tell the whole story of one job, from the durable log: when it was queued, every attempt and its error, how it ended.
///
/// Exits with 66 when the log does not know the job.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright log 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55
  imagewright log 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55 --follow")]
pub(crate) struct Options {
    /// A job id, as printed when it was enqueued.
    #[arg(value_name = "JOB")]
    job: String,
    /// Go on until the job has ended; with --json, one event a line.
    #[arg(long)]
    follow: bool,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let id = canonical(&options.job);
    let backend = context.open().await?;
    let events = history::of_job(&backend, &id, None).await?;
    if events.is_empty() {
        let text = format!("the log does not know {id}: check the id, --queue and --namespace");
        return Err(Failure { exit: Exit::UnknownJob, text });
    }
    if !options.follow {
        if context.json {
            report::json(&events)?;
        } else {
            report::result(&events.iter().map(|event| story::line(event) + "\n").collect::<String>())?;
        }
        return Ok(Exit::Ok);
    }
    let mut fold = Fold::default();
    for event in &events {
        fold.apply(event);
        print(context, event)?;
    }
    let since = history::begin_of(&id, Timestamp::now()).or(events.first().map(|event| event.at));
    let mut reader = backend.log.read(since.unwrap_or(Timestamp::UNIX_EPOCH), Until::Forever).await?;
    let mut known = events.len();
    while !fold.state(&id).is_terminal() && fold.state(&id) != State::Unknown {
        let event = tokio::select! {
            event = reader.next() => event?,
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
        };
        let Some(event) = event.filter(|event| event.id == id) else { continue };
        // The log is read from the job's beginning again: what was printed comes first.
        if known > 0 && events.contains(&event) {
            known -= 1;
            continue;
        }
        fold.apply(&event);
        print(context, &event)?;
    }
    Ok(Exit::Ok)
}

fn print(context: &Context, event: &Event) -> Result<(), Failure> {
    if context.json { report::json_line(event) } else { report::result(&(story::line(event) + "\n")) }
}
