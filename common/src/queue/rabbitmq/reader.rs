//! Reading the stream: by offset, from a time or a place on, over broken connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Acker, Channel};

use super::link::{Link, rpc};
use super::log::MARK;
use super::topology::{Names, short};
use crate::event::Event;
use crate::queue::{About, QueueError, Reader};

/// Messages sent ahead to a reader.
const READ_AHEAD: u16 = 4000;

/// Messages that are acknowledged together; fewer when no more are at hand.
const CREDIT: u16 = 1000;

/// How long a worker waits for a node to have a replica of the log before it turns to another one. Whatever it has in hand
/// goes back then.
const REPLICA_TIME: Duration = Duration::from_secs(30);

/// The broker finds a time only to the chunk, and clocks differ a little: begin this much earlier.
const SLACK_S: i64 = 60;

/// Where in the stream a reader begins.
pub(super) enum Begin {
    /// At the time since which it reads.
    Since,
    /// With the entries that the broker stored last.
    LastChunk,
    /// At this entry.
    Offset(i64),
}

pub(super) struct LogReader {
    names: Arc<Names>,
    link: Arc<Link>,
    about: About,
    since: Timestamp,
    from: AMQPValue,
    mark: Option<String>,
    pub(super) with_progress: bool,
    open: Option<Subscriptions>,
    /// Sorted out but not handed on: [`Reader::next`] may be cancelled while it acknowledges.
    taken: Option<Taken>,
}

struct Subscriptions {
    log: lapin::Consumer,
    /// Only for readers that stay.
    progress: Option<lapin::Consumer>,
    /// What was read and not acknowledged: how many messages of this channel, and the last of them.
    owed: Option<(u16, Acker)>,
}

impl Subscriptions {
    /// The next message. Nothing is left unacknowledged while it is waited for, lest the broker take us for stuck.
    async fn next(&mut self) -> Option<lapin::Result<Delivery>> {
        if let Some(ready) = self.received().now_or_never() {
            return ready;
        }
        self.credit().await;
        self.received().await
    }

    async fn received(&mut self) -> Option<lapin::Result<Delivery>> {
        match self.progress.as_mut() {
            None => self.log.next().await,
            Some(progress) => tokio::select! {
                message = self.log.next() => message,
                message = progress.next() => message,
            },
        }
    }

    async fn owe(&mut self, acker: Acker) {
        let count = self.owed.as_ref().map_or(0, |(count, _)| *count).saturating_add(1);
        self.owed = Some((count, acker));
        if count >= CREDIT {
            self.credit().await;
        }
    }

    async fn credit(&mut self) {
        let Some((_, acker)) = self.owed.take() else { return };
        // Bounded: the client never answers for what it was given in the moment in which the connection broke.
        let credited = rpc("basic.ack", acker.ack(BasicAckOptions { multiple: true })).await;
        tracing::trace!(?credited, "credit to the broker");
    }
}

impl LogReader {
    pub(super) fn new(
        names: Arc<Names>,
        link: Arc<Link>,
        about: About,
        since: Timestamp,
        begin: Begin,
        mark: Option<String>,
    ) -> LogReader {
        let from = match begin {
            Begin::Since => AMQPValue::Timestamp(u64::try_from(since.as_second().saturating_sub(SLACK_S)).unwrap_or(0)),
            Begin::LastChunk => AMQPValue::LongString("last".into()),
            Begin::Offset(offset) => AMQPValue::LongLongInt(offset),
        };
        LogReader { names, link, about, since, from, mark, with_progress: false, open: None, taken: None }
    }

    pub(super) async fn open(&mut self) -> Result<(), QueueError> {
        if self.open.is_none() {
            let since = Instant::now();
            self.open = Some(self.link.patiently(|| self.subscribe(since)).await?);
        }
        Ok(())
    }

    async fn subscribe(&self, since: Instant) -> Result<Subscriptions, QueueError> {
        let channel = self.link.channel().await?;
        let progress = if self.with_progress { Some(progress(&channel, &self.names).await?) } else { None };
        match stream(&channel, self.names.log(), self.from.clone()).await {
            Ok(log) => Ok(Subscriptions { log, progress, owed: None }),
            // A node reads a stream only where it has a replica, and one that has just come up has none yet.
            Err(QueueError::Refused(reason)) if reason.contains("(406)") => {
                if !self.link.is_endless() || since.elapsed() > REPLICA_TIME {
                    self.link.leave(&reason).await;
                }
                Err(QueueError::Unavailable(format!("{reason}; another node of the cluster may have one")))
            }
            Err(error) => Err(error),
        }
    }

    /// Where the first entry lies that it reads, which it keeps to hand on.
    pub(super) async fn first_offset(&mut self) -> Result<i64, QueueError> {
        loop {
            if let AMQPValue::LongLongInt(next) = self.from {
                return Ok(next.saturating_sub(1));
            }
            self.take().await?;
        }
    }

    /// Take the next message, if the connection holds.
    async fn take(&mut self) -> Result<(), QueueError> {
        self.open().await?;
        let Some(open) = self.open.as_mut() else { return Ok(()) };
        let Some(Ok(message)) = open.next().await else {
            tracing::debug!("reading of the log broke off; going on where it was");
            self.open = None;
            return Ok(());
        };
        self.taken = Some(self.sort(&message));
        if let Some(open) = self.open.as_mut() {
            open.owe(message.acker).await;
        }
        Ok(())
    }

    /// Sort out one message: an event to hand on, the end, or neither.
    fn sort(&mut self, message: &Delivery) -> Taken {
        if let Some(AMQPValue::LongLongInt(offset)) = header(message, "x-stream-offset") {
            self.from = AMQPValue::LongLongInt(offset.saturating_add(1));
        }
        if let Some(AMQPValue::LongString(mark)) = header(message, MARK) {
            let ours = self.mark.as_ref().is_some_and(|own| own.as_bytes() == mark.as_bytes());
            return if ours { Taken::End } else { Taken::Nothing };
        }
        if !self.about.may_be(&message.data) {
            return Taken::Nothing;
        }
        match serde_json::from_slice::<Event>(&message.data) {
            // A reader that stays hears whatever is said from now on, be a clock wrong.
            Ok(event) if event.at < self.since && self.mark.is_some() => Taken::Nothing,
            Ok(event) => Taken::Event(Box::new(event)),
            Err(error) => {
                tracing::debug!(%error, "an entry of the log that this version does not know");
                Taken::Nothing
            }
        }
    }
}

enum Taken {
    Event(Box<Event>),
    Nothing,
    End,
}

#[async_trait]
impl Reader for LogReader {
    async fn next(&mut self) -> Result<Option<Event>, QueueError> {
        loop {
            match self.taken.take() {
                Some(Taken::Event(event)) => return Ok(Some(*event)),
                Some(Taken::End) => {
                    self.taken = Some(Taken::End);
                    self.open = None;
                    return Ok(None);
                }
                Some(Taken::Nothing) | None => {}
            }
            self.take().await?;
        }
    }
}

fn header<'a>(message: &'a Delivery, name: &str) -> Option<&'a AMQPValue> {
    message.properties.headers().as_ref()?.inner().get(name)
}

async fn stream(channel: &Channel, queue: ShortString, from: AMQPValue) -> Result<lapin::Consumer, QueueError> {
    rpc("basic.qos", channel.basic_qos(READ_AHEAD, BasicQosOptions::default())).await?;
    let mut arguments = FieldTable::default();
    arguments.insert(short("x-stream-offset"), from);
    let options = BasicConsumeOptions::default();
    rpc("read the log", channel.basic_consume(queue, ShortString::default(), options, arguments)).await
}

async fn progress(channel: &Channel, names: &Names) -> Result<lapin::Consumer, QueueError> {
    let own = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let queue =
        rpc("listen for progress", channel.queue_declare(ShortString::default(), own, FieldTable::default())).await?;
    let name = queue.name().clone();
    let key = short("event.*.progress");
    rpc(
        "listen for progress",
        channel.queue_bind(name.clone(), names.events(), key, QueueBindOptions::default(), FieldTable::default()),
    )
    .await?;
    let options = BasicConsumeOptions::default();
    rpc("listen for progress", channel.basic_consume(name, ShortString::default(), options, FieldTable::default()))
        .await
}
