//! Every exchange and queue of a namespace, declared in one place. The arguments are those that RabbitMQ 3.10 to 4.x all
//! accept; they may never change for a name that exists.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, ExchangeKind};

use super::link::rpc;
use crate::job::{Kind, Lane};
use crate::queue::{QueueError, Tap};

/// The waits that exist, in seconds. Each has a queue with one fixed TTL: a TTL per message would expire only at the
/// head of the queue (RabbitMQ, "Time-to-Live and Expiration").
const RUNGS: [u64; 7] = [1, 5, 15, 60, 300, 1800, 7200];
/// What waits longer goes round again.
pub(super) const LONGEST_RUNG: Duration = Duration::from_secs(RUNGS[RUNGS.len() - 1]);

/// Redeliveries after which the broker gives a job up. A net only: crashes are counted and acted on long before.
pub(super) const DELIVERY_LIMIT: i64 = 20;

/// For queues where looking must not age a message. Not -1: on 3.10 that means "dead-letter at the first requeue".
const NO_DELIVERY_LIMIT: i64 = 2_147_483_647;

/// How long, and how much of, the log is kept.
const LOG_AGE: &str = "30D";
const LOG_BYTES: i64 = 2_000_000_000;
const LOG_SEGMENT_BYTES: i64 = 50_000_000;

/// The names of everything in one namespace.
pub(super) struct Names {
    namespace: String,
}

impl Names {
    pub(super) fn new(namespace: &str) -> Names {
        Names { namespace: namespace.to_owned() }
    }

    fn name(&self, rest: &str) -> ShortString {
        short(&format!("{}.{rest}", self.namespace))
    }

    pub(super) fn jobs(&self) -> ShortString {
        self.name("jobs")
    }

    pub(super) fn events(&self) -> ShortString {
        self.name("events")
    }

    pub(super) fn log(&self) -> ShortString {
        self.name("log")
    }

    pub(super) fn lost(&self) -> ShortString {
        self.name("lost")
    }

    pub(super) fn dead(&self) -> ShortString {
        self.name("dead")
    }

    pub(super) fn dead_lock(&self) -> ShortString {
        self.name("dead.reader")
    }

    /// Holds a message while new jobs of `kind` are paused. A queue of its own, because a broker counts for free: looking
    /// takes nothing from anybody.
    pub(super) fn pause(&self, kind: Kind) -> ShortString {
        self.name(&format!("pause.{kind}"))
    }

    /// The queue that a tap stands for.
    pub(super) fn queue(&self, tap: Tap) -> ShortString {
        match tap {
            Tap::New(_) | Tap::Started(_) => self.name(&key(tap)),
            Tap::Lost => self.lost(),
        }
    }

    /// The exchange of the shortest rung that is at least `wait`, or of the longest.
    pub(super) fn rung(&self, wait: Duration) -> ShortString {
        let seconds =
            RUNGS.into_iter().find(|seconds| Duration::from_secs(*seconds) >= wait).unwrap_or(RUNGS[RUNGS.len() - 1]);
        self.name(&format!("wait.{seconds}"))
    }

    /// Every queue but the log, in a fixed order.
    pub(super) fn all_queues(&self) -> Vec<ShortString> {
        let lanes = Lane::all().into_iter().flat_map(|lane| [Tap::New(lane), Tap::Started(lane)]);
        let mut names: Vec<ShortString> = lanes.map(|tap| self.queue(tap)).collect();
        names.extend(RUNGS.iter().map(|seconds| self.name(&format!("wait.{seconds}"))));
        names.push(self.lost());
        names.push(self.dead());
        names.extend(Kind::ALL.into_iter().map(|kind| self.pause(kind)));
        names
    }
}

/// The routing key that leads to a tap.
pub(super) fn key(tap: Tap) -> String {
    match tap {
        Tap::New(lane) => lane.to_string(),
        Tap::Started(lane) => format!("{lane}.started"),
        Tap::Lost => "lost".to_owned(),
    }
}

pub(super) fn short(text: &str) -> ShortString {
    ShortString::try_new(text.chars().take(250).collect::<String>()).unwrap_or_default()
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// Declare everything, or, where we may not configure, check that it is there.
pub(super) async fn declare(connection: &Connection, names: &Names) -> Result<(), QueueError> {
    match declare_all(connection, names).await {
        Err(QueueError::Refused(reason)) if reason.contains("(403)") => {
            tracing::info!(%reason, "no permission to configure: checking that the queues exist");
            check_all(connection, names).await
        }
        result => result,
    }
}

async fn declare_all(connection: &Connection, names: &Names) -> Result<(), QueueError> {
    let channel = rpc("channel.open", connection.create_channel()).await?;
    let to_lost = arguments([("alternate-exchange", AMQPValue::LongString(names.lost().as_str().into()))]);
    exchange(&channel, names.lost(), ExchangeKind::Fanout, FieldTable::default()).await?;
    exchange(&channel, names.jobs(), ExchangeKind::Topic, to_lost).await?;
    exchange(&channel, names.events(), ExchangeKind::Topic, FieldTable::default()).await?;

    quorum(&channel, names.dead(), [("x-delivery-limit", NO_DELIVERY_LIMIT.into())]).await?;
    quorum(&channel, names.lost(), [("x-delivery-limit", NO_DELIVERY_LIMIT.into())]).await?;
    bind(&channel, names.lost(), names.lost(), "#").await?;
    for lane in Lane::all() {
        for tap in [Tap::New(lane), Tap::Started(lane)] {
            let lost = ("x-dead-letter-exchange", text(names.lost().as_str()));
            let once = ("x-dead-letter-strategy", text("at-least-once"));
            quorum(&channel, names.queue(tap), [("x-delivery-limit", DELIVERY_LIMIT.into()), lost, once]).await?;
            bind(&channel, names.queue(tap), names.jobs(), &key(tap)).await?;
        }
    }
    for seconds in RUNGS {
        let rung = names.rung(Duration::from_secs(seconds));
        let ttl = i64::try_from(seconds * 1000).unwrap_or(i64::MAX);
        let home = ("x-dead-letter-exchange", text(names.jobs().as_str()));
        let once = ("x-dead-letter-strategy", text("at-least-once"));
        exchange(&channel, rung.clone(), ExchangeKind::Topic, FieldTable::default()).await?;
        let limit = ("x-delivery-limit", NO_DELIVERY_LIMIT.into());
        quorum(&channel, rung.clone(), [limit, ("x-message-ttl", ttl.into()), home, once]).await.map_err(too_old)?;
        bind(&channel, rung.clone(), rung, "#").await?;
    }
    for kind in Kind::ALL {
        quorum(&channel, names.pause(kind), [("x-delivery-limit", NO_DELIVERY_LIMIT.into())]).await?;
    }
    stream(&channel, names).await?;
    close(&channel).await;
    Ok(())
}

async fn stream(channel: &Channel, names: &Names) -> Result<(), QueueError> {
    let table = arguments([
        ("x-queue-type", text("stream")),
        ("x-max-age", text(LOG_AGE)),
        ("x-max-length-bytes", LOG_BYTES.into()),
        ("x-stream-max-segment-size-bytes", LOG_SEGMENT_BYTES.into()),
    ]);
    rpc("declare the log", channel.queue_declare(names.log(), QueueDeclareOptions::durable(), table))
        .await
        .map(drop)
        .map_err(|error| match error {
            QueueError::Refused(reason) => QueueError::Refused(format!(
                "{reason}: the log needs streams; on the broker run: rabbitmqctl enable_feature_flag stream_queue"
            )),
            QueueError::Unavailable(_) | QueueError::Unknown(_) | QueueError::Returned(_) | QueueError::Stale => error,
        })
}

fn too_old(error: QueueError) -> QueueError {
    match error {
        QueueError::Refused(reason) if reason.contains("x-message-ttl") => QueueError::Refused(format!(
            "{reason}: this broker is RabbitMQ 3.9 or older, whose quorum queues have no message TTL; 3.10 or later is needed"
        )),
        error @ (QueueError::Refused(_)
        | QueueError::Unavailable(_)
        | QueueError::Unknown(_)
        | QueueError::Returned(_)
        | QueueError::Stale) => error,
    }
}

/// A user without the right to configure works on what an administrator has set up.
async fn check_all(connection: &Connection, names: &Names) -> Result<(), QueueError> {
    let channel = rpc("channel.open", connection.create_channel()).await?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    for queue in names.all_queues().into_iter().chain([names.log()]) {
        let asked = rpc("check queue", channel.queue_declare(queue.clone(), passive, FieldTable::default())).await;
        asked.map_err(|error| {
            QueueError::Refused(format!("{queue}: {error}; run `imagewright queues` as a user who may configure"))
        })?;
    }
    close(&channel).await;
    Ok(())
}

fn arguments<const N: usize>(pairs: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in pairs {
        table.insert(short(name), value);
    }
    table
}

async fn exchange(
    channel: &Channel,
    name: ShortString,
    kind: ExchangeKind,
    table: FieldTable,
) -> Result<(), QueueError> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let what = format!("declare exchange {name}");
    rpc(&what, channel.exchange_declare(name, kind, options, table)).await
}

async fn quorum<const N: usize>(
    channel: &Channel,
    name: ShortString,
    extra: [(&str, AMQPValue); N],
) -> Result<(), QueueError> {
    let mut table = arguments(extra);
    table.insert(short("x-queue-type"), text("quorum"));
    table.insert(short("x-overflow"), text("reject-publish"));
    let what = format!("declare queue {name}");
    rpc(&what, channel.queue_declare(name, QueueDeclareOptions::durable(), table)).await.map(drop)
}

async fn bind(channel: &Channel, queue: ShortString, exchange: ShortString, key: &str) -> Result<(), QueueError> {
    let what = format!("bind queue {queue}");
    rpc(&what, channel.queue_bind(queue, exchange, short(key), QueueBindOptions::default(), FieldTable::default()))
        .await
}

pub(super) async fn close(channel: &Channel) {
    if let Err(error) = rpc("channel.close", channel.close(200, short("done"))).await {
        tracing::debug!(%error, "channel did not close");
    }
}
