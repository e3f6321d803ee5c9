//! One connection to the broker that is made again whenever it is lost. Publishing and consuming each have their own:
//! a publisher that the broker blocks must not freeze acknowledgements.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use lapin::{Channel, ErrorKind};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, sleep_until, timeout};

use super::dial::{GOODBYE, GOODBYE_OF_WORKER, Wire};
use super::state::{State, blocked};
use super::topology::{self, Names};
use crate::backoff;
use crate::queue::{AmqpHost, Patience, QueueError};
use crate::telemetry::process_name;

/// The longest a single request to the broker may take. A quorum queue without its quorum never answers.
pub(super) const RPC_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait between attempts, doubled at most by jitter. A channel that first publishes within a second of a leader
/// election may be refused for as long as the dead node stays away, so this is not shorter.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits before a connection double with each failure up to this many times: 8 to 16 s at last, so that a crowd of
/// workers neither floods a broker that comes back nor keeps it waiting.
const DOUBLINGS: u32 = 3;

/// A connection that lived this long was a good one: the next begins with the shortest wait.
const GOOD_LIFE: Duration = Duration::from_secs(30);

/// What is left of a command's patience once it has been connected, for what it connects for.
const PATIENCE_TO_DIAL: f64 = 0.8;

pub(super) struct Link {
    me: Weak<Link>,
    hosts: Vec<AmqpHost>,
    label: String,
    names: Arc<Names>,
    patience: Patience,
    next_host: AtomicUsize,
    was_up: AtomicBool,
    /// We have said goodbye: whoever still reads does not connect again.
    closed: AtomicBool,
    state: Arc<State>,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    wire: Option<Wire>,
    failures: u32,
    /// No connection before this.
    not_before: Option<Instant>,
    /// Since when there is none.
    away_since: Option<Instant>,
}

impl Slot {
    fn pause(&mut self) {
        let doubled = PAUSE.saturating_mul(2u32.saturating_pow(self.failures.min(DOUBLINGS)));
        self.not_before = Some(Instant::now() + backoff::jitter(doubled));
        self.failures = self.failures.saturating_add(1);
        self.away_since.get_or_insert_with(Instant::now);
    }
}

impl Link {
    pub(super) fn new(hosts: &[AmqpHost], label: &str, names: Arc<Names>, patience: Patience) -> Arc<Link> {
        Arc::new_cyclic(|me| Link {
            me: me.clone(),
            hosts: hosts.to_vec(),
            label: label.to_owned(),
            names,
            patience,
            next_host: AtomicUsize::new(0),
            was_up: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            state: Arc::new(State::new(label, patience)),
            slot: Mutex::default(),
        })
    }

    /// Whether there is a connection.
    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.state.up()
    }

    /// Connect now, so that what is wrong is said at start.
    pub(super) async fn ready(&self) -> Result<(), QueueError> {
        self.patiently(|| self.channel()).await.map(drop)
    }

    /// A fresh channel, connecting first if need be. One try, which waits for its turn.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        let mut slot = self.slot.lock().await;
        if self.is_closed() {
            return Err(closed());
        }
        if let Some(wire) = slot.wire.as_ref().filter(|wire| wire.is_up()) {
            let opened = if wire.is_blocked() { Err(blocked()) } else { wire.channel().await };
            match opened {
                Ok(channel) => return Ok(channel),
                Err(_) if wire.is_blocked() => return Err(blocked()),
                Err(error) => self.state.lost(&wire.host, &error.to_string()),
            }
        }
        if let Some(wire) = slot.wire.take() {
            self.state.lost(&wire.host, "the connection ended");
            if wire.since.elapsed() > GOOD_LIFE {
                slot.failures = 0;
            }
            slot.pause();
            tokio::spawn(wire.end(GOODBYE));
        }
        if let Some(not_before) = slot.not_before {
            sleep_until(not_before.into()).await;
        }
        if self.is_closed() {
            return Err(closed());
        }
        let connected = self.connect().await;
        let (wire, channel) = connected.inspect_err(|error| {
            slot.pause();
            self.state.lost(&self.places(), &error.to_string());
        })?;
        self.state.found(&wire.host, slot.away_since.take().map(|since| since.elapsed()));
        slot.wire = Some(wire);
        Ok(channel)
    }

    /// Connect again though nobody needs it just now.
    pub(super) async fn restore(self: Arc<Link>) {
        if self.is_endless()
            && let Err(error) = self.ready().await
        {
            tracing::debug!(connection = self.label, %error, "not restored");
        }
    }

    /// Declare anew what should exist and does not.
    async fn declare_again(&self) -> Result<(), QueueError> {
        let slot = self.slot.lock().await;
        match slot.wire.as_ref().filter(|wire| wire.is_up()) {
            Some(wire) => topology::declare(wire.raw(), &self.names).await,
            None => Ok(()),
        }
    }

    /// Whether the broker takes nothing from us for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.state.is_blocked()
    }

    /// Whether what the broker keeps from us is waited for.
    pub(super) fn is_endless(&self) -> bool {
        matches!(self.patience, Patience::Endless)
    }

    /// Turn from this host to the next one, if there is one.
    pub(super) async fn leave(&self, why: &str) {
        if self.hosts.len() < 2 {
            return;
        }
        if let Some(wire) = self.slot.lock().await.wire.take() {
            tracing::info!(connection = self.label, host = wire.host, why, "turning to the next host");
            wire.end(GOODBYE).await;
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Say goodbye, for good.
    pub(super) async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        // Who holds the slot longer is connecting to a broker that does not answer; there is nobody to say goodbye to.
        if let Ok(mut slot) = timeout(GOODBYE, self.slot.lock()).await
            && let Some(wire) = slot.wire.take()
        {
            let limit = match self.patience {
                Patience::For(_) => GOODBYE,
                Patience::Endless => GOODBYE_OF_WORKER,
            };
            wire.end(limit).await;
        }
    }

    /// A refusal ends a command, and a start; but a worker that was once accepted waits for the broker to think again.
    fn is_final(&self, error: &QueueError, accepted: &AtomicBool) -> bool {
        if self.is_closed() {
            return true;
        }
        match (error, self.patience) {
            (QueueError::Stale, _) | (QueueError::Refused(_), Patience::For(_)) => true,
            (QueueError::Refused(_), Patience::Endless) => !accepted.load(Ordering::Relaxed),
            (QueueError::Unavailable(_) | QueueError::Unknown(_) | QueueError::Returned(_), _) => false,
        }
    }

    /// Repeat what failed for want of the broker, for as long as our patience lasts.
    pub(super) async fn patiently<T, F>(&self, operation: impl FnMut() -> F) -> Result<T, QueueError>
    where
        F: Future<Output = Result<T, QueueError>>,
    {
        self.repeat(&self.was_up, operation).await
    }

    /// The same for what has its own permission: `accepted` once the broker has done it.
    pub(super) async fn repeat<T, F>(
        &self,
        accepted: &AtomicBool,
        mut operation: impl FnMut() -> F,
    ) -> Result<T, QueueError>
    where
        F: Future<Output = Result<T, QueueError>>,
    {
        let start = Instant::now();
        let (mut last, mut failures, mut said) = (None, 0_u32, false);
        loop {
            let mut attempt = match self.patience {
                Patience::For(limit) => match timeout(limit.saturating_sub(start.elapsed()), operation()).await {
                    Ok(result) => result,
                    Err(_) => return Err(last.unwrap_or_else(|| self.too_late(limit))),
                },
                Patience::Endless => operation().await,
            };
            if matches!(attempt, Err(QueueError::Returned(_)))
                && let Err(error) = self.declare_again().await
            {
                attempt = Err(error);
            }
            let error = match attempt {
                Ok(value) => {
                    self.was_up.store(true, Ordering::Relaxed);
                    accepted.store(true, Ordering::Relaxed);
                    if said {
                        let after_s = start.elapsed().as_secs();
                        tracing::info!(connection = self.label, after_s, "the broker does it again");
                    }
                    return Ok(value);
                }
                Err(error) if self.is_final(&error, accepted) => return Err(error),
                Err(error) => error,
            };
            failures += 1;
            let pause = backoff::jitter(PAUSE);
            match self.patience {
                Patience::For(limit) if start.elapsed() + pause >= limit => return Err(error),
                Patience::For(_) => tracing::debug!(connection = self.label, %error, "trying again"),
                // A lost connection is said by itself, once for all who use it.
                Patience::Endless if failures >= 2 && !said && !self.state.is_away() => {
                    said = true;
                    tracing::warn!(connection = self.label, %error, "the broker does not do it; trying again until it does");
                }
                Patience::Endless => {}
            }
            last = Some(error);
            sleep(pause).await;
        }
    }

    fn too_late(&self, limit: Duration) -> QueueError {
        if self.is_blocked() {
            return QueueError::Unknown(format!(
                "{}; what was sent may still be taken then: look at `imagewright status` before you ask again",
                bare(blocked())
            ));
        }
        QueueError::Unavailable(format!("no answer within {} s from {}", limit.as_secs(), self.places()))
    }

    fn places(&self) -> String {
        self.hosts.iter().map(|host| host.label.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Try each host once, beginning with the one after the last, until one takes us and has everything declared.
    async fn connect(&self) -> Result<(Wire, Channel), QueueError> {
        let mut failures = Vec::new();
        let mut refused = true;
        for _ in &self.hosts {
            let turn = self.next_host.fetch_add(1, Ordering::Relaxed);
            let Some(host) = self.hosts.get(turn % self.hosts.len()) else { continue };
            let error = match self.join(host).await {
                Ok(joined) => {
                    if !failures.is_empty() {
                        tracing::info!(
                            connection = self.label,
                            passed_over = failures.join("; "),
                            "not the first host"
                        );
                    }
                    return Ok(joined);
                }
                Err(error) => error,
            };
            refused &= matches!(error, QueueError::Refused(_));
            failures.push(format!("{}: {}", host.label, bare(error)));
        }
        let all = failures.join("; ");
        Err(if refused { QueueError::Refused(all) } else { QueueError::Unavailable(all) })
    }

    async fn join(&self, host: &AmqpHost) -> Result<(Wire, Channel), QueueError> {
        let limit = match self.patience {
            // Each host gets its share, so that a silent one does not keep a command from the next.
            Patience::For(limit) => limit.mul_f64(PATIENCE_TO_DIAL).div_f64(self.hosts.len() as f64).min(RPC_TIMEOUT),
            Patience::Endless => RPC_TIMEOUT,
        };
        let mut wire = Wire::dial(host, &format!("{}@{}", self.label, process_name()), limit).await?;
        wire.follow(self.state.clone(), self.me.clone());
        let channel = async {
            topology::declare(wire.raw(), &self.names).await?;
            wire.channel().await
        };
        match channel.await {
            Ok(channel) => Ok((wire, channel)),
            Err(error) => {
                tokio::spawn(wire.end(GOODBYE));
                Err(error)
            }
        }
    }
}

fn closed() -> QueueError {
    QueueError::Unavailable("the connection was closed on this side".to_owned())
}

/// The text of an error that becomes part of another.
fn bare(error: QueueError) -> String {
    match error {
        QueueError::Refused(text)
        | QueueError::Unavailable(text)
        | QueueError::Unknown(text)
        | QueueError::Returned(text) => text,
        QueueError::Stale => "stale".to_owned(),
    }
}

/// Await an answer of the broker, but not for ever.
pub(super) async fn rpc<T>(what: &str, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, QueueError> {
    match timeout(RPC_TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(sorted(what, &error)),
        Err(_) => Err(silent(what)),
    }
}

/// A request without an answer in time.
pub(super) fn silent(what: &str) -> QueueError {
    QueueError::Unknown(format!("{what}: no answer within {} s", RPC_TIMEOUT.as_secs()))
}

/// The right that each request takes, by how it is called here.
const RIGHTS: [(&str, &str); 6] = [
    ("basic.publish", "write"),
    ("basic.consume", "read"),
    ("read ", "read"),
    ("resume", "read"),
    ("lock ", "configure"),
    ("declare ", "configure"),
];

/// A refusal of RabbitMQ before 3.11 says what may not be touched, not which right is missing; later ones say both.
fn name_the_right(what: &str, said: &str) -> String {
    match RIGHTS.iter().find(|(request, _)| what.starts_with(request)) {
        Some((_, right)) => said.replacen(" - access to ", &format!(" - {right} access to "), 1),
        None => said.to_owned(),
    }
}

/// Errors of the client by what to do next. The reply codes are those of AMQP 0-9-1, section 1.2.
pub(super) fn sorted(what: &str, error: &lapin::Error) -> QueueError {
    if let ErrorKind::ProtocolError(amqp) = error.kind() {
        let text = format!("{what}: {} ({})", name_the_right(what, amqp.get_message().as_str()), amqp.get_id());
        return match amqp.get_id() {
            402 | 403 | 406 | 530 => QueueError::Refused(text),
            404 => QueueError::Returned(text),
            _ => QueueError::Unavailable(text),
        };
    }
    QueueError::Unavailable(format!("{what}: {error}"))
}
