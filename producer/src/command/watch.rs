//! `imagewright watch`

use clap::Args;
use imagewright_common::queue::Until;
use imagewright_common::status::{State, canonical, oldest};
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::follow::{self, Audience};
use crate::history;
use crate::watch::Watch;

/// Clocks of workers differ a little from ours.
const SLACK: SignedDuration = SignedDuration::from_secs(5);

/// Watch jobs come on, live: those named and all they lead to until they have ended, or everything until Ctrl-C.
///
/// With jobs named, exits like --wait: 0 when all succeeded, 1 when one did not. With --json, one event a line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright watch
  imagewright watch 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55
  imagewright watch --json | jq -r 'select(.event == \"failed\") | .error'")]
pub(crate) struct Options {
    /// Job ids, as printed when they were enqueued.
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let ids: Vec<String> = options.jobs.iter().map(|id| canonical(id)).collect();
    let backend = context.open().await?;
    if ids.is_empty() {
        let reader = backend.log.read(now, Until::Forever).await?;
        let from = now.checked_sub(SLACK).unwrap_or(now);
        return follow::run(context, backend, reader, now, Watch::everything(from), Audience::Watch).await;
    }
    let told = ids.iter().map(|id| history::begin_of(id, now));
    let since = match told.collect::<Option<Vec<_>>>().and_then(|begins| begins.into_iter().min()) {
        Some(since) => since,
        None => oldest(now),
    };
    let fold = history::since(&backend, since).await?;
    let unknown: Vec<&str> = ids.iter().map(String::as_str).filter(|id| fold.state(id) == State::Unknown).collect();
    if !unknown.is_empty() {
        let text = format!("the log does not know {}: check the id, --queue and --namespace", unknown.join(", "));
        return Err(Failure { exit: Exit::UnknownJob, text });
    }
    let reader = backend.log.read(since, Until::Forever).await?;
    follow::run(context, backend, reader, since, Watch::new(ids), Audience::Watch).await
}
