//! `imagewright status`

use clap::Args;
use imagewright_common::status::{Cut, Fold, JobStatus, State, canonical};
use jiff::{SignedDuration, Timestamp};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::history;
use crate::report::{self, Table};
use crate::time::{self, Since};
use crate::watch::tree;

/// Show where jobs stand: those named, or all that said anything lately.
///
/// Exits with 66 when the log does not know a job that is named.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright status --since 2h
  imagewright status --tree 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55")]
pub(crate) struct Options {
    /// Job ids, as printed when they were enqueued.
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Show with each job the jobs it led to.
    #[arg(long)]
    tree: bool,
    /// How far back to read: a duration or a time. An id of ours tells its own time. [default: 24h; of a longer log on
    /// RabbitMQ the newest 30,000 entries]
    #[arg(long, value_name = "DURATION|TIME", value_parser = time::since)]
    since: Option<Since>,
}

/// How far back to read when nobody says.
const A_DAY: Since = Since::Ago(SignedDuration::from_hours(24));

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let ids: Vec<String> = options.jobs.iter().map(|id| canonical(id)).collect();
    let since = begin(&ids, options.since.unwrap_or(A_DAY), Timestamp::now());
    let backend = context.open().await?;
    let fold = if ids.is_empty() && options.since.is_none() {
        let (fold, cut) = history::lately(&backend, since).await?;
        cut.iter().for_each(tell);
        fold
    } else if ids.is_empty() || options.tree {
        history::since(&backend, since).await?
    } else {
        history::of_jobs(&backend, &ids, since).await?
    };
    let rows = rows(&fold, &ids, options.tree);
    let jobs: Vec<&JobStatus> = rows.iter().map(|(_, job)| job).collect();
    if context.json {
        report::json(&jobs)?;
    } else {
        report::result(&table(&rows).render())?;
    }
    let unknown: Vec<&str> = ids.iter().map(String::as_str).filter(|id| fold.state(id) == State::Unknown).collect();
    if unknown.is_empty() {
        return Ok(Exit::Ok);
    }
    let text = format!(
        "the log since {} does not know {}: check the id, --queue and --namespace, or look further back with --since 30d",
        report::time(Some(since)),
        unknown.join(", ")
    );
    Err(Failure { exit: Exit::UnknownJob, text })
}

/// That not all of the last day is shown, and how to see it.
fn tell(cut: &Cut) {
    report::note(&format!(
        "the newest {} entries of the log, since {}; --since 24h reads further back, a minute for a million entries",
        cut.entries,
        report::time(cut.oldest)
    ));
}

/// Where to begin reading: at the oldest of what is asked for.
fn begin(ids: &[String], since: Since, now: Timestamp) -> Timestamp {
    let otherwise = since.from(now);
    ids.iter().map(|id| history::begin_of(id, now).unwrap_or(otherwise)).min().unwrap_or(otherwise)
}

fn rows(fold: &Fold, ids: &[String], with_tree: bool) -> Vec<(usize, JobStatus)> {
    let mut roots = ids.to_vec();
    if ids.is_empty() {
        let mut jobs: Vec<JobStatus> = fold.jobs().collect();
        jobs.sort_by_key(|job| job.created_at);
        if !with_tree {
            return jobs.into_iter().map(|job| (0, job)).collect();
        }
        let is_root =
            |job: &JobStatus| job.parent.as_deref().is_none_or(|parent| fold.get(parent).created_at.is_none());
        roots = jobs.into_iter().filter(is_root).map(|job| job.id).collect();
    }
    if with_tree { tree(fold, &roots) } else { roots.iter().map(|id| (0, fold.get(id))).collect() }
}

fn table(rows: &[(usize, JobStatus)]) -> Table {
    let mut table = Table::new(&["JOB", "KIND", "NAME", "ARCH", "CLOUD", "STATE", "ATTEMPTS", "UPDATED"]);
    for (depth, job) in rows {
        let cells = vec![
            format!("{}{}", "  ".repeat(*depth), job.id),
            report::word(job.kind.as_deref()),
            report::word(job.name.as_deref()),
            report::word(job.arch.as_deref()),
            report::word(job.cloud.as_deref()),
            if job.cancel_requested { format!("{}, to be cancelled", job.state) } else { job.state.to_string() },
            job.attempts.to_string(),
            report::time(job.updated_at),
        ];
        let beneath = match (&job.error, &job.waits_for) {
            (Some(error), _) => Some(format!("error: {error}")),
            (None, Some(why)) => Some(format!("waits: {why}")),
            (None, None) => None,
        };
        table.row(cells, beneath);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use imagewright_common::event::{Event, What};
    use imagewright_common::job::id_time;

    const ROOT: &str = "0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55";
    const CHILD: &str = "5199a0c2-7c1e-5aaa-8bbb-3f2f6a1d9c55";

    fn event(id: &str, parent: Option<&str>, what: What) -> Event {
        Event {
            at: "2026-11-23T10:00:00.5Z".parse().unwrap(),
            id: id.to_owned(),
            parent: parent.map(|id| id.parse().unwrap()),
            run: 0,
            kind: Some("upload".to_owned()),
            name: Some("noble".to_owned()),
            arch: None,
            cloud: Some("edge-1".to_owned()),
            by: "h/1".to_owned(),
            what,
        }
    }

    fn fold() -> Fold {
        let failed =
            What::Failed { error: "no such file".to_owned(), field: None, attempt: 1, step: None, request_id: None };
        let mut fold = Fold::default();
        fold.apply(&event(CHILD, Some(ROOT), failed));
        fold.apply(&event(ROOT, None, What::Queued));
        fold
    }

    #[test]
    fn children_stand_beneath_their_parent_with_their_error() {
        let shown = table(&rows(&fold(), &[], true)).render();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with(&format!("{ROOT}    upload  noble  -     edge-1  queued")), "{shown}");
        assert!(
            lines[2].starts_with(&format!("  {CHILD}  upload")) && lines[2].ends_with("1         2026-11-23T10:00:00Z"),
            "{shown}"
        );
        assert_eq!(lines[3], "    error: no such file");
    }

    #[test]
    fn one_entry_for_each_id_asked_in_that_order() {
        let ids = [CHILD, "msg-0123456789ab", ROOT].map(str::to_owned);
        let shown = rows(&fold(), &ids, false);
        assert_eq!(shown.iter().map(|(_, job)| job.id.clone()).collect::<Vec<_>>(), ids);
        assert_eq!(shown[1].1.state, State::Unknown);
        assert_eq!(rows(&fold(), &[ROOT.to_owned()], true).len(), 2);
        assert!(rows(&Fold::default(), &[], true).is_empty());
    }

    #[test]
    fn an_id_of_ours_tells_where_to_begin() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        let since = Since::Ago(SignedDuration::from_hours(1));
        let told = id_time(ROOT.parse().unwrap()).unwrap();
        assert_eq!(begin(&[ROOT.to_owned()], since, now), told - SignedDuration::from_mins(1));
        assert_eq!(begin(&[CHILD.to_owned()], since, now).to_string(), "2026-11-23T09:00:00Z");
        assert_eq!(begin(&[CHILD.to_owned(), ROOT.to_owned()], since, now), told - SignedDuration::from_mins(1));
        assert_eq!(begin(&[], since, now).to_string(), "2026-11-23T09:00:00Z");
        assert_eq!(canonical(&ROOT.to_uppercase()), ROOT);
    }
}
