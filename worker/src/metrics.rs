//! What is counted and measured, and its names for Prometheus. No label holds a job id, a message's own words, or a name
//! of which no image exists.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use imagewright_common::arch::Arch;
use imagewright_common::event::Event;
use imagewright_common::job::{CloudName, Kind, Message};
use imagewright_common::queue::Depth;
use imagewright_common::store::Observer;
use jiff::Timestamp;
use prometheus::core::Collector;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::verdict::Sort;

/// Upper bounds of the durations told apart, in seconds: from a look that finds nothing to do to a long transfer.
const BUCKETS: [f64; 16] =
    [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 150.0, 300.0, 600.0, 1800.0, 3600.0];

/// Jobs remembered with the crashes that were counted for them.
const CRASHED_MAX: usize = 10_000;

/// The label of what has no architecture, and of what is no kind of ours.
const ANY: &str = "any";
const UNKNOWN: &str = "unknown";

/// Whose images are to be looked at: all clouds where none is named.
pub(crate) type Look = Option<String>;

pub(crate) struct Metrics {
    registry: Registry,
    jobs: IntCounterVec,
    steps: HistogramVec,
    ready: IntGaugeVec,
    in_flight: IntGaugeVec,
    sent: IntCounterVec,
    retries: IntCounterVec,
    dead: IntGaugeVec,
    connected: IntGauge,
    auth_failed: IntGaugeVec,
    images: IntGaugeVec,
    crashed: Mutex<HashMap<Uuid, u32>>,
    looks: mpsc::UnboundedSender<Look>,
}

impl Metrics {
    /// Nothing counted so far. The receiver is told which clouds may have new images.
    ///
    /// # Errors
    /// Two metrics of one name.
    pub(crate) fn new() -> prometheus::Result<(Arc<Metrics>, mpsc::UnboundedReceiver<Look>)> {
        let registry = Registry::new();
        let build = gauges("build_info", "The version that runs; always 1.", &["version"])?;
        let durations = HistogramOpts::new("imagewright_step_duration_seconds", "How long a step of a job took.");
        let (looks, asked) = mpsc::unbounded_channel();
        let metrics = Metrics {
            jobs: counters("jobs_total", "Jobs that ended here, by how they did.", &["kind", "arch", "outcome"])?,
            steps: HistogramVec::new(durations.buckets(BUCKETS.to_vec()), &["kind", "step"])?,
            ready: gauges("queue_ready", "Jobs that lie ready in a queue.", &["queue"])?,
            in_flight: gauges("in_flight", "Jobs that this worker works on.", &["kind"])?,
            sent: counters("transfer_bytes_total", "Bytes of images sent to a cloud.", &["cloud"])?,
            retries: counters("retries_total", "Jobs put back to be tried again, by cause.", &["kind", "cause"])?,
            dead: gauges("dead_jobs", "Jobs that were given up and wait for a human.", &[])?,
            connected: IntGauge::new("imagewright_broker_connected", "Whether the queue can be used.")?,
            auth_failed: gauges("cloud_auth_failed", "Whether Keystone refuses our credentials.", &["cloud"])?,
            images: gauges(
                "image_created_timestamp_seconds",
                "When the newest verified image of ours was created, by the cloud's clock.",
                &["cloud", "name", "arch"],
            )?,
            crashed: Mutex::default(),
            registry,
            looks,
        };
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        metrics.register(build)?;
        let started = IntGauge::new("imagewright_start_time_seconds", "When this process began, in Unix time.")?;
        started.set(Timestamp::now().as_second());
        metrics.register(started)?;
        metrics.register_all()?;
        metrics.begin_at_zero();
        Ok((Arc::new(metrics), asked))
    }

    fn register(&self, collector: impl Collector + 'static) -> prometheus::Result<()> {
        self.registry.register(Box::new(collector))
    }

    fn register_all(&self) -> prometheus::Result<()> {
        self.register(self.steps.clone())?;
        self.register(self.connected.clone())?;
        [&self.jobs, &self.sent, &self.retries].into_iter().try_for_each(|vec| self.register(vec.clone()))?;
        let gauges = [&self.ready, &self.in_flight, &self.dead, &self.auth_failed, &self.images];
        gauges.into_iter().try_for_each(|vec| self.register(vec.clone()))
    }

    /// What is there from the start is seen to rise; a rate needs a first value.
    fn begin_at_zero(&self) {
        for kind in Kind::ALL {
            self.in_flight.with_label_values(&[kind.as_str()]).set(0);
            let archs = Arch::ALL.into_iter().map(Arch::as_str).chain((!kind.per_arch()).then_some(ANY));
            for arch in archs {
                for outcome in ["succeeded", "failed", "cancelled"] {
                    self.jobs.with_label_values(&[kind.as_str(), arch, outcome]).reset();
                }
            }
            for cause in ["transient", "busy", "unknown-cloud", "crash"] {
                self.retries.with_label_values(&[kind.as_str(), cause]).reset();
            }
        }
    }

    /// An event was written to the log.
    pub(crate) fn said(&self, event: &Event) {
        if !event.what.is_terminal() {
            return;
        }
        let kind = event.kind.as_deref().and_then(|word| word.parse::<Kind>().ok());
        let arch = event.arch.as_deref().and_then(|word| word.parse::<Arch>().ok());
        let labels = [kind.map_or(UNKNOWN, Kind::as_str), arch.map_or(ANY, Arch::as_str), event.what.word()];
        self.jobs.with_label_values(&labels).inc();
        if kind.is_some_and(Kind::is_transfer) && event.cloud.is_some() {
            self.look_at(event.cloud.clone());
        }
    }

    /// A failed job is put back to be tried again.
    pub(crate) fn retried(&self, kind: Kind, sort: &Sort) {
        let cause = match sort {
            Sort::Transient { .. } => "transient",
            Sort::Busy { .. } => "busy",
            Sort::UnknownCloud { .. } => "unknown-cloud",
            Sort::Rejected { .. } => return,
        };
        self.retries.with_label_values(&[kind.as_str(), cause]).inc();
    }

    /// A job came that was lost `crashes` times with its worker or its connection; each time is counted once.
    pub(crate) fn came(&self, message: &Message, crashes: u32) {
        if crashes == 0 {
            return;
        }
        let mut crashed = self.crashed.lock().unwrap_or_else(PoisonError::into_inner);
        if crashed.len() >= CRASHED_MAX {
            crashed.clear();
        }
        if crashed.insert(message.id, crashes).is_none_or(|before| before < crashes) {
            self.retries.with_label_values(&[message.spec.kind().as_str(), "crash"]).inc();
        }
    }

    /// One more job in flight, until what is returned is dropped.
    pub(crate) fn begin(&self, kind: Kind) -> InFlight {
        let gauge = self.in_flight.with_label_values(&[kind.as_str()]);
        gauge.inc();
        InFlight(gauge)
    }

    /// An observer of transfers to `cloud`, whose bytes count. Messages may name clouds that there are not, so there is
    /// no such label before the first byte.
    pub(crate) fn observer(&self, cloud: &CloudName) -> Observer {
        let (sent, cloud) = (self.sent.clone(), cloud.clone());
        Observer::metered(move |bytes| sent.with_label_values(&[cloud.as_str()]).inc_by(bytes))
    }

    /// Measure the steps that an observer has seen end.
    pub(crate) fn took(&self, kind: Kind, observer: &Observer) {
        for (step, time) in observer.take_done() {
            self.steps.with_label_values(&[kind.as_str(), step]).observe(time.as_secs_f64());
        }
    }

    pub(crate) fn is_connected(&self, connected: bool) {
        self.connected.set(connected.into());
    }

    /// What lies in the queues now, or none while that is not known.
    pub(crate) fn depths(&self, depths: &[Depth], namespace: &str) {
        self.ready.reset();
        self.dead.reset();
        for Depth { queue, ready, .. } in depths {
            let ready = i64::try_from(*ready).unwrap_or(i64::MAX);
            self.ready.with_label_values(&[queue]).set(ready);
            if queue.strip_prefix(namespace) == Some(".dead") {
                self.dead.with_label_values::<&str>(&[]).set(ready);
            }
        }
    }

    /// Whether Keystone accepted us. Those not heard of keep what was known.
    pub(crate) fn logins(&self, logins: &[(String, Option<bool>)]) {
        for (cloud, accepted) in logins {
            if let Some(accepted) = accepted {
                self.auth_failed.with_label_values(&[cloud]).set((!accepted).into());
            }
        }
    }

    /// A cloud is configured, or no more.
    pub(crate) fn cloud(&self, cloud: &str, configured: bool) {
        if configured {
            self.sent.with_label_values(&[cloud]).inc_by(0);
        } else {
            drop(self.auth_failed.remove_label_values(&[cloud]));
        }
    }

    /// Ask for the images of a cloud to be looked at. In vain where nobody does.
    pub(crate) fn look_at(&self, look: Look) {
        drop(self.looks.send(look));
    }

    /// When an image was created, in seconds of Unix time; none: it is there no more.
    pub(crate) fn image(&self, cloud: &str, name: &str, arch: Arch, created: Option<i64>) {
        let labels = [cloud, name, arch.as_str()];
        match created {
            Some(created) => self.images.with_label_values(&labels).set(created),
            None => drop(self.images.remove_label_values(&labels)),
        }
    }

    /// All of it, in Prometheus's text format 0.0.4.
    pub(crate) fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics cannot be written");
            String::new()
        })
    }
}

fn counters(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(format!("imagewright_{name}"), help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(format!("imagewright_{name}"), help), labels)
}

/// A job in flight, as long as it lives.
pub(crate) struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(metrics: &Metrics, start: &str) -> Option<String> {
        metrics.text().lines().find(|line| line.starts_with(&format!("imagewright_{start}"))).map(str::to_owned)
    }

    #[test]
    fn depths_that_are_not_known_are_absent() {
        let (metrics, _asked) = Metrics::new().unwrap();
        assert_eq!(line(&metrics, "dead_jobs"), None);
        let depth = |queue: &str, ready| Depth { queue: queue.to_owned(), ready, consumers: 0 };
        metrics.depths(&[depth("team.lost", 1), depth("team.dead", 2)], "team");
        assert_eq!(line(&metrics, "dead_jobs").as_deref(), Some("imagewright_dead_jobs 2"));
        assert_eq!(line(&metrics, "queue_ready{queue=\"team.lost\"}").map(|line| line.ends_with(" 1")), Some(true));
        metrics.depths(&[], "team");
        assert_eq!((line(&metrics, "dead_jobs"), line(&metrics, "queue_ready")), (None, None));
    }

    #[test]
    fn a_login_not_heard_of_keeps_what_was_known() {
        let (metrics, _asked) = Metrics::new().unwrap();
        let mut seen = Vec::new();
        for accepted in [None, Some(false), None, Some(true), None] {
            metrics.logins(&[("edge".to_owned(), accepted)]);
            seen.push(line(&metrics, "cloud_auth_failed").map(|line| line.ends_with(" 1")));
        }
        assert_eq!(seen, [None, Some(true), Some(true), Some(false), Some(false)]);
    }

    #[test]
    fn a_crash_is_counted_once_however_often_the_job_comes() {
        let (metrics, _asked) = Metrics::new().unwrap();
        let text = r#"{"version":1,"id":"0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55",
            "spec":{"kind":"prune","name":"n","cloud":"edge","keep":2}}"#;
        let message = imagewright_common::wire::decode(text.as_bytes(), jiff::Timestamp::now()).unwrap();
        [0, 1, 1, 2, 2].into_iter().for_each(|crashes| metrics.came(&message, crashes));
        let counted = line(&metrics, "retries_total{cause=\"crash\",kind=\"prune\"}").unwrap();
        assert!(counted.ends_with(" 2"), "{counted}");
    }

    #[test]
    fn what_only_a_message_says_is_no_label() {
        let (metrics, _asked) = Metrics::new().unwrap();
        let event = r#"{"at":"2026-11-23T10:00:00Z","id":"msg-1","kind":"paint","arch":"z80","cloud":"nowhere",
            "by":"w","event":"failed","error":"no","attempt":0}"#;
        metrics.said(&serde_json::from_str(event).unwrap());
        let counted = line(&metrics, "jobs_total{arch=\"any\",kind=\"unknown\",outcome=\"failed\"}").unwrap();
        assert!(counted.ends_with(" 1"), "{counted}");
        assert!(!["paint", "z80", "nowhere"].iter().any(|word| metrics.text().contains(word)));
    }
}
