//! One connection to the broker that is made again whenever it is lost. Publishing and consuming each have their own:
//! a publisher that the broker blocks must not freeze acknowledgements.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::{Channel, Connection, ConnectionProperties, ErrorKind};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::topology::{self, Names};
use crate::backoff;
use crate::queue::{AmqpHost, Patience, QueueError};
use crate::telemetry::process_name;

/// The longest a single request to the broker may take. A quorum queue without its quorum never answers.
pub(super) const RPC_TIMEOUT: Duration = Duration::from_secs(10);

/// Wait between reconnections, doubled at most by jitter. A channel that first publishes within a second of a leader
/// election may be refused for as long as the dead node stays away, so this is not shorter.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) struct Link {
    hosts: Vec<AmqpHost>,
    label: String,
    names: Arc<Names>,
    patience: Patience,
    next_host: AtomicUsize,
    down: AtomicBool,
    was_up: AtomicBool,
    connection: Mutex<Option<Connection>>,
}

impl Link {
    pub(super) fn new(hosts: &[AmqpHost], label: &str, names: Arc<Names>, patience: Patience) -> Link {
        Link {
            hosts: hosts.to_vec(),
            label: label.to_owned(),
            names,
            patience,
            next_host: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            was_up: AtomicBool::new(false),
            connection: Mutex::new(None),
        }
    }

    /// Connect now, so that what is wrong is said at start.
    pub(super) async fn ready(&self) -> Result<(), QueueError> {
        self.patiently(|| self.channel()).await.map(drop)
    }

    /// A fresh channel, connecting first if need be. One try.
    pub(super) async fn channel(&self) -> Result<Channel, QueueError> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| connection.status().connected()) {
            match rpc("channel.open", connection.create_channel()).await {
                Ok(channel) => return Ok(channel),
                Err(error) => tracing::debug!(%error, "connection is of no more use"),
            }
        }
        *slot = None;
        let connection = self.connect().await?;
        topology::declare(&connection, &self.names).await?;
        let channel = rpc("channel.open", connection.create_channel()).await?;
        *slot = Some(connection);
        Ok(channel)
    }

    /// Connect and declare anew at the next use: something that should exist does not.
    pub(super) async fn reset(&self) {
        *self.connection.lock().await = None;
    }

    /// A refusal ends a command, and a start; but a worker that was once accepted waits for the broker to think again.
    fn is_final(&self, error: &QueueError) -> bool {
        match (error, self.patience) {
            (QueueError::Stale, _) | (QueueError::Refused(_), Patience::For(_)) => true,
            (QueueError::Refused(_), Patience::Endless) => !self.was_up.load(Ordering::Relaxed),
            (QueueError::Unavailable(_) | QueueError::Unknown(_) | QueueError::Returned(_), _) => false,
        }
    }

    /// Repeat what failed for want of the broker, for as long as our patience lasts.
    pub(super) async fn patiently<T, F>(&self, mut operation: impl FnMut() -> F) -> Result<T, QueueError>
    where
        F: Future<Output = Result<T, QueueError>>,
    {
        let start = Instant::now();
        loop {
            let attempt = match self.patience {
                Patience::For(limit) => match timeout(limit.saturating_sub(start.elapsed()), operation()).await {
                    Ok(result) => result,
                    Err(_) => Err(QueueError::Unavailable(format!(
                        "no answer within {} s from {}",
                        limit.as_secs(),
                        self.places()
                    ))),
                },
                Patience::Endless => operation().await,
            };
            let error = match attempt {
                Ok(value) => {
                    self.was_up.store(true, Ordering::Relaxed);
                    if self.down.swap(false, Ordering::Relaxed) {
                        tracing::info!(connection = self.label, "broker is back");
                    }
                    return Ok(value);
                }
                Err(error) if self.is_final(&error) => return Err(error),
                Err(error) => error,
            };
            let pause = backoff::jitter(PAUSE);
            match self.patience {
                Patience::For(limit) if start.elapsed() + pause >= limit => return Err(error),
                Patience::For(_) => tracing::debug!(connection = self.label, %error, "trying again"),
                Patience::Endless if self.down.swap(true, Ordering::Relaxed) => {}
                Patience::Endless => {
                    tracing::warn!(connection = self.label, %error, "broker is away; trying again until it is back");
                }
            }
            sleep(pause).await;
        }
    }

    fn places(&self) -> String {
        self.hosts.iter().map(|host| host.label.as_str()).collect::<Vec<_>>().join(", ")
    }

    /// Try each host once, beginning with the one after the last.
    async fn connect(&self) -> Result<Connection, QueueError> {
        let mut failures = Vec::new();
        for _ in &self.hosts {
            let turn = self.next_host.fetch_add(1, Ordering::Relaxed);
            let Some(host) = self.hosts.get(turn % self.hosts.len()) else { continue };
            match timeout(RPC_TIMEOUT, self.dial(host)).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(QueueError::Refused(reason))) => {
                    return Err(QueueError::Refused(format!("{}: {reason}", host.label)));
                }
                Ok(Err(
                    QueueError::Unavailable(reason) | QueueError::Unknown(reason) | QueueError::Returned(reason),
                )) => {
                    failures.push(format!("{}: {reason}", host.label));
                }
                Ok(Err(QueueError::Stale)) => {}
                Err(_) => failures.push(format!("{}: no answer within {} s", host.label, RPC_TIMEOUT.as_secs())),
            }
        }
        Err(QueueError::Unavailable(failures.join("; ")))
    }

    async fn dial(&self, host: &AmqpHost) -> Result<Connection, QueueError> {
        let name = format!("{}@{}", self.label, process_name());
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| QueueError::Unavailable(error.to_string()))?;
        Connection::connect_with_config(&host.uri, properties, tls(host)?, runtime)
            .await
            .map_err(|error| sorted("connect", &error))
    }
}

fn tls(host: &AmqpHost) -> Result<OwnedTLSConfig, QueueError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| QueueError::Refused(format!("cannot read {}: {error}", path.display())))
    };
    let cert_chain = match &host.tls.ca {
        Some(path) => Some(String::from_utf8_lossy(&read(path)?).into_owned()),
        None => None,
    };
    let identity = match (&host.tls.cert, &host.tls.key) {
        (Some(cert), Some(key)) => Some(OwnedIdentity::PKCS8 { pem: read(cert)?, key: read(key)? }),
        _ => None,
    };
    Ok(OwnedTLSConfig { identity, cert_chain })
}

/// Await an answer of the broker, but not for ever.
pub(super) async fn rpc<T>(what: &str, answer: impl Future<Output = lapin::Result<T>>) -> Result<T, QueueError> {
    match timeout(RPC_TIMEOUT, answer).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(sorted(what, &error)),
        Err(_) => Err(QueueError::Unknown(format!("{what}: no answer within {} s", RPC_TIMEOUT.as_secs()))),
    }
}

/// Errors of the client by what to do next. The reply codes are those of AMQP 0-9-1, section 1.2.
fn sorted(what: &str, error: &lapin::Error) -> QueueError {
    if let ErrorKind::ProtocolError(amqp) = error.kind() {
        let text = format!("{what}: {} ({})", amqp.get_message(), amqp.get_id());
        return match amqp.get_id() {
            402 | 403 | 406 | 530 => QueueError::Refused(text),
            _ => QueueError::Unavailable(text),
        };
    }
    QueueError::Unavailable(format!("{what}: {error}"))
}
