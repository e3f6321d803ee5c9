//! From options to exit code: open everything, take jobs until told to stop, hand back what runs.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use imagewright_common::job::{Kind, Lane};
use imagewright_common::openstack::Clouds;
use imagewright_common::policy::{self, Policy};
use imagewright_common::queue::{self, Address, Backend, Patience, QueueError};
use imagewright_common::store::{CloudPool, Sources};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{RwLock, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use crate::builders::Builders;
use crate::content::Content;
use crate::drain;
use crate::handle::Desk;
use crate::journal::Journal;
use crate::lanes::Taker;
use crate::ledger::Ledger;
use crate::notify::Notifier;
use crate::options::Options;
use crate::outside::{AbortOnDrop, Outside};
use crate::pauses::Pauses;
use crate::room::Room;
use crate::steps::Tools;
use crate::sweep;
use crate::vitals::Opened;

const OK: u8 = 0;
const USAGE: u8 = 64;
const UNREACHABLE: u8 = 69;
const INTERNAL: u8 = 70;
const NOT_DRAINED: u8 = 75;

/// How long a last word may take after the grace time.
const LAST_WORD: Duration = Duration::from_secs(5);

/// An error and the exit code it means.
struct Fatal(u8, anyhow::Error);

pub(crate) async fn run(options: Options) -> ExitCode {
    if options.print_policy {
        let printed = std::io::stdout().write_all(policy::DEFAULT.as_bytes());
        return ExitCode::from(if printed.is_ok() { OK } else { INTERNAL });
    }
    match serve(options).await {
        Ok(code) => ExitCode::from(code),
        Err(Fatal(code, error)) => {
            tracing::error!("{error:#}");
            ExitCode::from(code)
        }
    }
}

/// What the queue refuses is a matter of configuration.
fn queue_failure(error: QueueError) -> Fatal {
    let code = if matches!(error, QueueError::Refused(_)) { USAGE } else { UNREACHABLE };
    Fatal(code, error.into())
}

fn usage(error: impl Into<anyhow::Error>) -> Fatal {
    Fatal(USAGE, error.into())
}

async fn serve(options: Options) -> Result<u8, Fatal> {
    let address = address(&options)?;
    let policy = Policy::load(options.policy.as_deref()).map_err(usage)?;
    let (sources, builders) = (sources(&options)?, builders(&options)?);
    let pool = CloudPool::new(Clouds::load().map_err(usage)?);
    let mut signals = Signals::new()?;
    let hangups = signal(SignalKind::hangup()).map_err(|error| Fatal(INTERNAL, error.into()))?;
    let mut outside = Outside::start(&options).await.map_err(usage)?;
    let (ledger, requests) = Ledger::new();
    let ledger = Arc::new(ledger);
    let opening = async {
        let backend = queue::open(&address, &options.namespace, "imagewright-worker", Patience::Endless).await?;
        ledger.catch_up(&*backend.log).await?;
        Ok((Pauses::follow(backend.desk.clone()).await?, backend))
    };
    let (pauses, backend) = tokio::select! {
        opened = opening => opened.map_err(queue_failure)?,
        () = signals.next() => {
            outside.stopping().await;
            return Ok(told_to_stop(&options));
        }
    };
    let tools = Tools {
        pool,
        sources,
        policy: std::sync::RwLock::new(Arc::new(policy)),
        room: Room::new(&options.concurrency, options.cloud_transfers),
        log: backend.log.clone(),
        namespace: options.namespace.clone(),
        builders,
        ledger: ledger.clone(),
    };
    let ((stop, stopping), (hand_back, handing_back)) = (watch::channel(false), watch::channel(false));
    let desk = Desk {
        tools: Arc::new(tools),
        queue: backend.queue.clone(),
        journal: Journal::new(backend.log.clone(), outside.metrics.clone()),
        metrics: outside.metrics.clone(),
        alone: RwLock::new(()),
        detached: Mutex::default(),
        hand_back: handing_back,
    };
    let tasks = TaskTracker::new();
    let taker = Taker { desk: Arc::new(desk), tasks: tasks.clone(), stop: stopping, pauses };
    let lanes: Vec<Lane> = options.kinds().into_iter().flat_map(|kind| Lane::of(kind, &options.archs())).collect();
    let following = AbortOnDrop::spawn(ledger.follow(backend.log.clone()));
    let heeding = AbortOnDrop::spawn(taker.desk.clone().heed(requests, lanes.clone(), tasks.clone()));
    let (mut takers, handles) = take(&taker, &lanes);
    outside.opened(Opened { backend: backend.clone(), tools: taker.desk.tools.clone(), takers: handles });
    let reloading = reload_on_hangup(hangups, taker.desk.clone(), options.policy.clone(), outside.notifier.clone());
    let _others = (AbortOnDrop::spawn(reloading), sweeping(&options, taker.desk.tools.clone()));
    tracing::info!(queue = %address, namespace = options.namespace, lanes = lanes.len(), "ready");

    let code = tokio::select! {
        () = signals.next() => told_to_stop(&options),
        drained = drained(&options, &backend, &lanes) => drained?,
        broken = takers.join_next() => return Err(broken_taker(broken)),
    };
    tracing::info!(in_flight = tasks.len(), grace_s = options.grace, "stopping");
    stop.send_replace(true);
    drop(heeding);
    outside.stopping().await;
    tokio::select! {
        () = finish(&mut takers, &tasks, &hand_back, options.grace()) => {}
        () = signals.next() => tracing::warn!("told twice to stop; leaving at once"),
    }
    drop(following);
    backend.queue.close().await;
    tracing::info!("stopped");
    Ok(code)
}

fn sources(options: &Options) -> Result<Sources, Fatal> {
    let sources = Sources::new(&options.file_roots, &options.url_hosts).map_err(usage)?;
    Ok(sources.with_keyring(options.keyring.clone()))
}

/// Leftovers of builds are looked for by those who build.
fn sweeping(options: &Options, tools: Arc<Tools>) -> Option<AbortOnDrop> {
    let sweeps = options.sweep > 0 && options.kinds().contains(&Kind::Build);
    sweeps.then(|| AbortOnDrop::spawn(sweep::follow(tools, Duration::from_secs(options.sweep))))
}

fn builders(options: &Options) -> Result<Builders, Fatal> {
    let built_in = Content::built_in();
    let content = match &options.content_dir {
        Some(folder) => built_in.with_folder(folder).map_err(usage)?,
        None => built_in,
    };
    Ok(Builders::new(options.build_key_file(), options.secrets_dir.clone(), content, options.places.clone()))
}

fn address(options: &Options) -> Result<Address, Fatal> {
    let text = match (&options.queue, &options.queue_file) {
        (Some(queue), _) => Some(queue.clone()),
        (None, Some(file)) => {
            let read = std::fs::read_to_string(file);
            Some(
                read.map_err(|error| usage(anyhow::anyhow!("--queue-file {}: {error}", file.display())))?
                    .trim()
                    .to_owned(),
            )
        }
        (None, None) => None,
    };
    match text {
        Some(text) => text.parse().map_err(usage),
        None => Address::embedded(&|name| std::env::var(name).ok()).map_err(usage),
    }
}

fn take(taker: &Taker, lanes: &[Lane]) -> (JoinSet<Result<(), QueueError>>, Vec<AbortHandle>) {
    let (mut takers, mut handles) = (JoinSet::new(), Vec::new());
    for lane in lanes {
        let (lane, room) = (*lane, taker.desk.tools.room.of(lane.kind));
        handles.push(takers.spawn(taker.clone().persist(move |taker| taker.new_jobs(lane, room.clone()))));
        handles.push(takers.spawn(taker.clone().persist(move |taker| taker.returning_jobs(lane))));
    }
    handles.push(takers.spawn(taker.clone().persist(Taker::lost_jobs)));
    (takers, handles)
}

/// SIGHUP reads the files again: a rotated password, a new cloud, a changed policy.
async fn reload_on_hangup(mut hangups: Signal, desk: Arc<Desk>, policy: Option<PathBuf>, notifier: Arc<Notifier>) {
    while hangups.recv().await.is_some() {
        notifier.reloading().await;
        match desk.tools.reload(policy.as_deref()).await {
            Ok(()) => tracing::info!("clouds.yaml and policy read again"),
            Err(error) => tracing::error!("the files are not used, those from before are: {error:#}"),
        }
        notifier.reloaded().await;
        desk.metrics.look_at(None);
    }
}

/// Whoever drains a queue to put it away must know that something may be left.
fn told_to_stop(options: &Options) -> u8 {
    if options.drain { NOT_DRAINED } else { OK }
}

/// Never returns unless draining was asked for.
async fn drained(options: &Options, backend: &Backend, lanes: &[Lane]) -> Result<u8, Fatal> {
    if !options.drain {
        return std::future::pending().await;
    }
    let kinds = options.kinds();
    let draining = drain::drained(backend, &kinds, lanes);
    let result = match options.drain_timeout {
        None => draining.await,
        Some(seconds) => match timeout(Duration::from_secs(seconds), draining).await {
            Ok(result) => result,
            Err(_) => {
                tracing::error!(seconds, "not drained in time; `imagewright status` shows what is left");
                return Ok(NOT_DRAINED);
            }
        },
    };
    result.map_err(queue_failure)?;
    tracing::info!("drained");
    Ok(OK)
}

/// Let running work end; hand back what is left when the grace time is over.
async fn finish(
    takers: &mut JoinSet<Result<(), QueueError>>,
    tasks: &TaskTracker,
    hand_back: &watch::Sender<bool>,
    grace: Duration,
) {
    let work = async {
        while let Some(taker) = takers.join_next().await {
            tracing::debug!(?taker, "a taker ended");
        }
        tasks.close();
        tasks.wait().await;
    };
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => return,
        () = sleep(grace) => {}
    }
    tracing::warn!(in_flight = tasks.len(), "the grace time is over; handing back what runs");
    hand_back.send_replace(true);
    if timeout(LAST_WORD, work).await.is_err() {
        tracing::warn!("not everything could be handed back; it comes back by itself");
    }
}

fn broken_taker(broken: Option<Result<Result<(), QueueError>, tokio::task::JoinError>>) -> Fatal {
    match broken {
        Some(Ok(Err(error))) => queue_failure(error),
        Some(Err(error)) => Fatal(INTERNAL, error.into()),
        Some(Ok(Ok(()))) | None => Fatal(INTERNAL, anyhow::anyhow!("a taker ended by itself")),
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Signals, Fatal> {
        let listen = |kind| signal(kind).map_err(|error| Fatal(INTERNAL, error.into()));
        Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
