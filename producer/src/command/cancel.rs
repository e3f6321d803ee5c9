//! `imagewright cancel`

use clap::Args;
use imagewright_common::event::{Event, What};
use imagewright_common::queue::{Backend, Until};
use imagewright_common::status::{JobStatus, State, canonical, oldest};
use jiff::Timestamp;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::watch::{label, tree};
use crate::{history, report};

/// How long a worker may need; then the request stands, and we leave.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// Cancel jobs and all they led to, whether they are queued, waiting or running.
///
/// A worker stops the work, removes what it had made, and says `cancelled`. An image that is there already is never
/// removed: that job ends well, and this command with 1. A job that has ended cannot be cancelled (64).
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright cancel 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55 --wait")]
pub(crate) struct Options {
    /// Job ids, as printed when they were enqueued.
    #[arg(value_name = "JOB", required = true)]
    jobs: Vec<String>,
    /// Stay until they have ended; at most a minute.
    #[arg(long)]
    wait: bool,
}

#[derive(Serialize)]
struct Asked {
    jobs: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    kind: Option<String>,
    cloud: Option<String>,
    state: State,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let now = Timestamp::now();
    let ids: Vec<String> = options.jobs.iter().map(|id| canonical(id)).collect();
    let backend = context.open().await?;
    let begins = ids.iter().map(|id| history::begin_of(id, now)).collect::<Option<Vec<_>>>();
    let since = begins.and_then(|begins| begins.into_iter().min()).unwrap_or_else(|| oldest(now));
    let fold = history::since(&backend, since).await?;
    let unknown: Vec<&str> = ids.iter().map(String::as_str).filter(|id| fold.state(id) == State::Unknown).collect();
    if !unknown.is_empty() {
        let text = format!("the log does not know {}: check the id, --queue and --namespace", unknown.join(", "));
        return Err(Failure { exit: Exit::UnknownJob, text });
    }
    let family: Vec<JobStatus> = tree(&fold, &ids).into_iter().map(|(_, job)| job).collect();
    let asked: Vec<JobStatus> = family.into_iter().filter(is_open).collect();
    let ended: Vec<String> =
        ids.iter().map(|id| fold.get(id)).filter(|job| job.state.is_terminal()).map(refusal).collect();
    for job in &asked {
        backend.log.append(&request(job, context, now)).await?;
    }
    let rows = if options.wait { wait(&backend, since, asked).await? } else { asked };
    print(context, &rows)?;
    if !ended.is_empty() {
        return Err(Failure::usage(ended.join("; ")));
    }
    let failed = options.wait && rows.iter().any(|job| job.state != State::Cancelled);
    for job in rows.iter().filter(|job| options.wait && job.state != State::Cancelled) {
        report::note(&format!("{} is {}, not cancelled", label(job), job.state));
    }
    Ok(if failed { Exit::JobFailed } else { Exit::Ok })
}

fn is_open(job: &JobStatus) -> bool {
    !job.state.is_terminal() && job.state != State::Unknown
}

fn refusal(job: JobStatus) -> String {
    let open: Vec<&str> = job.children.iter().map(String::as_str).collect();
    let hint = if open.is_empty() { String::new() } else { format!(" (it led to {})", open.join(", ")) };
    format!("{} has {} already and cannot be cancelled{hint}", job.id, job.state)
}

/// What workers hear: enough of the job that one can take it back without its message.
fn request(job: &JobStatus, context: &Context, now: Timestamp) -> Event {
    Event {
        at: now,
        id: job.id.clone(),
        parent: job.parent.as_deref().and_then(|parent| parent.parse().ok()),
        run: job.run,
        kind: job.kind.clone(),
        name: job.name.clone(),
        arch: job.arch.clone(),
        cloud: job.cloud.clone(),
        by: context.by.clone(),
        what: What::CancelRequested,
    }
}

/// Until all have ended or our patience has.
async fn wait(backend: &Backend, since: Timestamp, asked: Vec<JobStatus>) -> Result<Vec<JobStatus>, Failure> {
    let mut fold = imagewright_common::status::Fold::default();
    let ids: Vec<String> = asked.into_iter().map(|job| job.id).collect();
    let mut reader = backend.log.read(since, Until::Ever).await?;
    let ending = async {
        while !ids.iter().all(|id| fold.state(id).is_terminal()) {
            match reader.next().await? {
                Some(event) => fold.apply(&event),
                None => break,
            }
        }
        Ok::<(), Failure>(())
    };
    if let Ok(ended) = tokio::time::timeout(PATIENCE, ending).await {
        ended?;
    } else {
        report::note("not all have ended yet; the request stands: a worker heeds it when it comes by the job");
    }
    Ok(ids.iter().map(|id| fold.get(id)).collect())
}

fn print(context: &Context, jobs: &[JobStatus]) -> Result<(), Failure> {
    if !context.json {
        return report::result(&jobs.iter().map(|job| format!("{}\n", job.id)).collect::<String>());
    }
    let row = |job: &JobStatus| Row {
        id: job.id.clone(),
        kind: job.kind.clone(),
        cloud: job.cloud.clone(),
        state: job.state,
    };
    report::json(&Asked { jobs: jobs.iter().map(row).collect() })
}
