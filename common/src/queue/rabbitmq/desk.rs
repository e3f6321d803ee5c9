//! What an operator looks at, without changing it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
    QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Queue};

use super::envelope;
use super::link::{Link, rpc};
use super::publisher::{Publisher, To};
use super::topology::{Names, close, short};
use crate::backoff;
use crate::job::Kind;
use crate::queue::{Counts, Dead, Depth, Desk, Fate, Judge, QueueError};

/// The dead read at once: the largest prefetch there is.
const READ_MAX: u16 = u16::MAX;

pub(super) struct RabbitDesk {
    names: Arc<Names>,
    link: Arc<Link>,
    queue: Arc<dyn crate::queue::Queue>,
    publisher: Arc<Publisher>,
}

impl RabbitDesk {
    pub(super) fn new(
        names: Arc<Names>,
        link: Arc<Link>,
        queue: Arc<dyn crate::queue::Queue>,
        publisher: Arc<Publisher>,
    ) -> RabbitDesk {
        RabbitDesk { names, link, queue, publisher }
    }

    async fn paused_once(&self) -> Result<Vec<Kind>, QueueError> {
        let channel = self.link.channel().await?;
        let mut paused = Vec::new();
        for kind in Kind::ALL {
            if look(&channel, self.names.pause(kind).as_str()).await?.message_count() > 0 {
                paused.push(kind);
            }
        }
        close(&channel).await;
        Ok(paused)
    }

    async fn resume_once(&self, kind: Kind) -> Result<(), QueueError> {
        let channel = self.link.channel().await?;
        rpc("resume", channel.queue_purge(self.names.pause(kind), QueuePurgeOptions::default())).await?;
        close(&channel).await;
        Ok(())
    }

    async fn depths_once(&self) -> Result<Vec<Depth>, QueueError> {
        let channel = self.link.channel().await?;
        let mut depths = Vec::new();
        for name in self.names.all_queues() {
            let queue = look(&channel, name.as_str()).await?;
            depths.push(Depth {
                queue: name.as_str().to_owned(),
                ready: u64::from(queue.message_count()),
                consumers: u64::from(queue.consumer_count()),
            });
        }
        close(&channel).await;
        Ok(depths)
    }

    /// Taking a message hides it from a second reader, so readers take turns: who holds the lock may look.
    async fn in_turn(&self, judge: Option<&Judge>) -> Result<Vec<Dead>, QueueError> {
        let channel = self.link.channel().await?;
        let exclusive = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let lock = self.names.dead_lock();
        match rpc("lock the dead", channel.queue_declare(lock.clone(), exclusive, FieldTable::default())).await {
            Ok(_) => {}
            Err(QueueError::Refused(reason)) if reason.contains("(405)") => {
                return Err(QueueError::Unavailable(reason));
            }
            Err(error) => return Err(error),
        }
        let dead = self.go_through(&channel, judge).await;
        let unlocked =
            rpc("unlock the dead", channel.queue_delete(lock, lapin::options::QueueDeleteOptions::default())).await;
        close(&channel).await;
        // A refusal costs the channel: that it cannot be used any more is not the news.
        let dead = dead?;
        unlocked.map(|_| dead)
    }

    /// Take every message, settle the judged ones, give the others back, and leave when the queue shows them again.
    async fn go_through(&self, channel: &Channel, judge: Option<&Judge>) -> Result<Vec<Dead>, QueueError> {
        let name = self.names.dead();
        let count = look(channel, name.as_str()).await?.message_count().min(READ_MAX.into());
        if count == 0 {
            return Ok(Vec::new());
        }
        rpc("basic.qos", channel.basic_qos(READ_MAX, BasicQosOptions::default())).await?;
        let tag = short("imagewright-dead-reader");
        let options = BasicConsumeOptions::default();
        let mut messages =
            rpc("basic.consume", channel.basic_consume(name.clone(), tag.clone(), options, FieldTable::default()))
                .await?;
        let mut read_ahead = Vec::new();
        for _ in 0..count {
            let next = rpc("read the dead", async { messages.next().await.transpose() }).await?;
            let Some(message) = next else { break };
            read_ahead.push((message.delivery_tag, read(message)));
        }
        rpc("basic.cancel", channel.basic_cancel(tag, BasicCancelOptions::default())).await?;
        let mut told = Vec::new();
        let (mut left, mut last_left) = (0, None);
        for (tag, dead) in read_ahead {
            let leaves = match judge {
                Some(judge) => self.carry_out(&judge(&dead)).await?,
                None => false,
            };
            if leaves {
                rpc("basic.ack", channel.basic_ack(tag, BasicAckOptions::default())).await?;
            } else {
                (left, last_left) = (left + 1, Some(tag));
            }
            if leaves || judge.is_none() {
                told.push(dead);
            }
        }
        if let Some(last) = last_left {
            let back = BasicNackOptions { multiple: true, requeue: true };
            rpc("basic.nack", channel.basic_nack(last, back)).await?;
        }
        while look(channel, name.as_str()).await?.message_count() < left {
            tokio::time::sleep(backoff::jitter(Duration::from_millis(10))).await;
        }
        Ok(told)
    }

    /// Whether the job leaves the dead.
    async fn carry_out(&self, fate: &Fate) -> Result<bool, QueueError> {
        match fate {
            Fate::Keep => Ok(false),
            Fate::Discard => Ok(true),
            Fate::Requeue { lane, id, payload } => self.queue.publish(*lane, id, payload).await.map(|()| true),
        }
    }
}

fn read(message: lapin::message::Delivery) -> Dead {
    let counts = envelope::counts(&message.properties);
    Dead {
        attempts: counts.attempt,
        first_at: counts.first_at,
        last_at: envelope::last_at(&message.properties),
        burial: envelope::burial(&message.properties),
        payload: message.data,
    }
}

#[async_trait]
impl Desk for RabbitDesk {
    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        self.link.patiently(|| self.depths_once()).await
    }

    async fn dead(&self) -> Result<Vec<Dead>, QueueError> {
        self.link.patiently(|| self.in_turn(None)).await
    }

    async fn judge_dead(&self, judge: Judge) -> Result<Vec<Dead>, QueueError> {
        self.link.patiently(|| self.in_turn(Some(&judge))).await
    }

    async fn paused(&self) -> Result<Vec<Kind>, QueueError> {
        self.link.patiently(|| self.paused_once()).await
    }

    async fn pause(&self, kind: Kind) -> Result<(), QueueError> {
        // Two who pause at once leave two messages; a resumption takes both.
        if self.paused().await?.contains(&kind) {
            return Ok(());
        }
        let properties = envelope::properties("pause", &Counts::default());
        self.publisher.publish(&To::queue(self.names.pause(kind)), b"", &properties).await
    }

    async fn resume(&self, kind: Kind) -> Result<(), QueueError> {
        self.link.patiently(|| self.resume_once(kind)).await
    }
}

async fn look(channel: &Channel, name: &str) -> Result<Queue, QueueError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    rpc("look at a queue", channel.queue_declare(short(name), passive, FieldTable::default())).await
}
