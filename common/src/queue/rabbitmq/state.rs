//! What is known of a connection without waiting for it; each change of it is said once, not by each who uses it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use lapin::{ConnectionStatus, Event};
use tokio::sync::watch;

use super::link::Link;
use crate::queue::{Patience, QueueError};

pub(super) struct State {
    connection: String,
    /// A command says in its end what failed; a worker, at once.
    quiet: bool,
    away: AtomicBool,
    blocked: AtomicBool,
    up: watch::Sender<bool>,
}

impl State {
    pub(super) fn new(connection: &str, patience: Patience) -> State {
        State {
            connection: connection.to_owned(),
            quiet: matches!(patience, Patience::For(_)),
            away: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            up: watch::Sender::new(false),
        }
    }

    /// Whether there is a connection; changes as that does.
    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// It was said that there is no connection.
    pub(super) fn is_away(&self) -> bool {
        self.away.load(Ordering::Relaxed)
    }

    /// The broker takes nothing from us for now.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    pub(super) fn lost(&self, host: &str, reason: &str) {
        self.up.send_if_modified(|up| std::mem::replace(up, false));
        self.blocked.store(false, Ordering::Relaxed);
        if self.away.swap(true, Ordering::Relaxed) || self.quiet {
            tracing::debug!(connection = self.connection, host, reason, "still no broker");
        } else {
            tracing::warn!(connection = self.connection, host, reason, "broker is away; trying again until it is back");
        }
    }

    pub(super) fn found(&self, host: &str, away: Option<Duration>) {
        let connection = self.connection.as_str();
        self.up.send_if_modified(|up| !std::mem::replace(up, true));
        self.blocked.store(false, Ordering::Relaxed);
        if self.away.swap(false, Ordering::Relaxed) {
            let after_s = away.map_or(0, |away| away.as_secs());
            tracing::info!(connection, host, after_s, "broker is back");
        } else {
            tracing::info!(connection, host, "connected to the broker");
        }
    }

    fn block(&self, host: &str, reason: &str) {
        self.blocked.store(true, Ordering::Relaxed);
        if !self.quiet {
            tracing::warn!(
                connection = self.connection,
                host,
                reason,
                "the broker takes no messages for now: it is short of memory or disk"
            );
        }
    }

    fn unblock(&self, host: &str) {
        self.blocked.store(false, Ordering::Relaxed);
        tracing::info!(connection = self.connection, host, "the broker takes messages again");
    }
}

/// Follow what happens to a connection until it ends, and see to it that there is another.
pub(super) async fn follow(
    state: Arc<State>,
    link: Weak<Link>,
    host: String,
    status: ConnectionStatus,
    events: impl Stream<Item = Event> + Send + 'static,
) {
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        // An error may be that of a single channel.
        if let Event::Error(error) = &event
            && !status.connected()
        {
            state.lost(&host, &error.to_string());
            // In a task of its own: this one ends with the connection.
            if let Some(link) = link.upgrade() {
                tokio::spawn(link.restore());
            }
            return;
        }
        if let Event::ConnectionBlocked(reason) = &event {
            state.block(&host, reason);
        }
        if matches!(event, Event::ConnectionUnblocked) {
            state.unblock(&host);
        }
    }
}

/// What a publisher is told whose broker takes nothing.
pub(super) fn blocked() -> QueueError {
    QueueError::Unavailable(
        "the broker takes no messages for now: it is short of memory or disk (`rabbitmqctl status` shows its alarms)"
            .to_owned(),
    )
}
