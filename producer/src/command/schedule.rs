//! `imagewright schedule`

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use imagewright_common::arch::Arch;
use imagewright_common::job::{CloudName, ImageName};
use imagewright_common::openstack::Glance;
use imagewright_common::store::revision;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::context::Context;
use crate::enqueue::{self, Batch, Order, Repeat};
use crate::exit::{Exit, Failure};
use crate::report::{self, Table};
use crate::schedule::plan::{self, Newest, Planned, Revision, Seen, State};
use crate::schedule::{Target, file};
use crate::{clouds, history};

/// Enqueue what a file of desired images asks for and the clouds lack: missing images, and new revisions of stale ones.
///
/// Run it from a timer, as often as you like and on as many machines as you like: the jobs of one image, cloud and time
/// slot have one id, so the work is done once. Prints one job id a line, and why on stderr; nothing when all is fresh.
///
/// An image is stale when its newest verified revision was asked for one interval ago or earlier. A job that is queued,
/// running or waiting for it is left to end. A job that failed is not enqueued again before the next slot begins:
/// `imagewright dead requeue JOB` is for that. A cloud that does not answer is told of, the others are served, and the
/// exit code is 69.
#[derive(Debug, Args)]
#[command(after_help = "\
Example of a file:
  images:
    - name: noble
      clouds: [edge-1, edge-2]
      interval: 7d
      keep: 3
      sources:
        amd64: {file: /srv/images/noble-amd64.img}
        arm64:
          url: https://images.example.org/noble-arm64.img
          sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    - name: rescue
      arch: amd64
      source: {image: {cloud: edge-1, id: 0f9f6a8e-2c5d-4f4f-9d9c-0b8f5a3c2d12}}
      clouds: [edge-2]
      interval: 24h
      visibility: shared
      properties: {os_distro: ubuntu}
    - name: runner-noble-amd64
      arch: amd64
      build: {cloud: build, base: noble}
      clouds: [edge-1, edge-2]
      interval: 6h

`imagewright schema schedule` prints the JSON Schema of the file.

Examples:
  imagewright schedule --file images.yaml --dry-run
  imagewright schedule --file images.yaml --deadline 6h --wait")]
pub(crate) struct Options {
    /// The desired images, in YAML.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Show how each image stands and what would be enqueued, and why; enqueue nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    enqueue: enqueue::Options,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a ImageName,
    arch: Arch,
    cloud: &'a CloudName,
    state: State,
    reason: &'a str,
    job: Option<&'a str>,
    /// Whether the job is to be enqueued by this command.
    enqueue: bool,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let begun = Timestamp::now();
    let targets = read(&options.file)?;
    let pool = clouds::pool()?;
    let backend = context.open().await?;
    let jobs = history::whole(&backend).await?;
    let wanted = Arc::new(wanted(&targets));
    let ask = move |cloud, glance| newest(Arc::clone(&wanted), cloud, glance);
    let answers = clouds::all(&pool, &named(&targets), ask).await;
    let mut exit = Exit::Ok;
    for failure in answers.iter().filter_map(|(_, answer)| answer.as_ref().err()) {
        report::note(&format!("error: {failure}"));
        exit = clouds::worst(exit, failure.exit);
    }
    let seen = Seen { now: begun, namespace: &context.namespace, jobs, clouds: answers.into_iter().collect() };
    let planned = plan::plan(targets, &seen);
    if options.dry_run {
        show(context, &planned)?;
        return Ok(exit);
    }
    explain(context, &planned);
    let orders = planned.iter().filter(|planned| planned.state.is_due()).map(order).collect();
    let batch = Batch { orders, since: begun, also: document(&planned)?, repeat: Repeat::Whole };
    let ended = enqueue::send(context, Some(backend), batch, &options.enqueue).await?;
    Ok(if exit == Exit::Ok || ended == Exit::Interrupted { ended } else { exit })
}

fn read(path: &Path) -> Result<Vec<Target>, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("--file: cannot read {shown}: {error}")))?;
    file::parse(&text).map_err(|reason| Failure::usage(format!("{shown}: {reason}")))
}

/// Every cloud once, in the order of the file.
fn named(targets: &[Target]) -> Vec<CloudName> {
    let mut seen = HashSet::new();
    targets.iter().flat_map(Target::clouds).filter(|cloud| seen.insert(*cloud)).cloned().collect()
}

/// Which names and architectures are asked for on each cloud.
type Wanted = HashMap<CloudName, BTreeMap<ImageName, Vec<Arch>>>;

fn wanted(targets: &[Target]) -> Wanted {
    let mut wanted = Wanted::new();
    for target in targets {
        for cloud in target.clouds() {
            let names = wanted.entry(cloud.clone()).or_default();
            names.entry(target.name.clone()).or_default().push(target.arch);
        }
    }
    wanted
}

/// The newest verified revision of everything that is wanted of one cloud.
async fn newest(wanted: Arc<Wanted>, cloud: CloudName, glance: Glance) -> Result<Newest, Failure> {
    let mut newest = Newest::new();
    for (name, archs) in wanted.get(&cloud).into_iter().flatten() {
        let images = revision::owned(&glance, name).await?.value;
        for arch in archs {
            if let Some(image) = revision::newest_verified(&images, *arch) {
                let (asked_at, _, _) = revision::order(image);
                newest.insert((name.clone(), *arch), Revision { id: image.id.clone(), asked_at });
            }
        }
    }
    Ok(newest)
}

/// The slot decides the id and the time, so that whoever asks in it asks for the same.
fn order(planned: &Planned) -> Order {
    Order { id: planned.id, asked_at: planned.slot.start, spec: planned.target.spec.clone() }
}

impl<'a> From<&'a Planned> for Row<'a> {
    fn from(planned: &'a Planned) -> Row<'a> {
        let Planned { target, state, reason, job, .. } = planned;
        let Target { name, arch, cloud, .. } = target;
        Row { name, arch: *arch, cloud, state: *state, reason, job: job.as_deref(), enqueue: state.is_due() }
    }
}

fn document(planned: &[Planned]) -> Result<Map<String, Value>, Failure> {
    let rows: Vec<Row<'_>> = planned.iter().map(Row::from).collect();
    let targets = serde_json::to_value(rows).map_err(|error| Failure::internal(error.to_string()))?;
    Ok(Map::from_iter([("targets".to_owned(), targets)]))
}

/// The whole plan, as the result.
fn show(context: &Context, planned: &[Planned]) -> Result<(), Failure> {
    if context.json {
        let mut document = document(planned)?;
        document.insert("jobs".to_owned(), Value::Array(Vec::new()));
        return report::json(&document);
    }
    let mut table = Table::new(&["NAME", "ARCH", "CLOUD", "STATE", "ENQUEUE", "REASON"]);
    for row in planned.iter().map(Row::from) {
        let job = if row.enqueue { row.job } else { None };
        let words = [row.name.as_str(), row.arch.as_str(), row.cloud.as_str(), row.state.as_str()];
        let words = words.into_iter().chain([job.unwrap_or("-"), row.reason]);
        table.row(words.map(str::to_owned).collect(), None);
    }
    report::result(&table.render())
}

/// What a person, or the journal of a timer, should know. Clouds that do not answer have been told of.
fn explain(context: &Context, planned: &[Planned]) {
    let mut counts: BTreeMap<State, usize> = BTreeMap::new();
    for Planned { target, state, reason, .. } in planned {
        *counts.entry(*state).or_default() += 1;
        let warning = match state {
            State::Missing | State::Stale | State::UnderWay if !context.quiet => "",
            State::Failed | State::Cancelled | State::Gone => "warning: ",
            State::Fresh | State::Missing | State::Stale | State::UnderWay | State::Unreachable => continue,
        };
        let Target { name, arch, cloud, .. } = target;
        report::note(&format!("{warning}{name} {arch} on {cloud} is {}: {reason}", state.as_str()));
    }
    if !context.quiet {
        let counts: Vec<String> = counts.iter().map(|(state, count)| format!("{count} {}", state.as_str())).collect();
        report::note(&format!("{} images in all: {}", planned.len(), counts.join(", ")));
    }
}
