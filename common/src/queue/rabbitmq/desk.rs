//! What an operator looks at, without changing it.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Queue};

use super::envelope;
use super::link::{Link, rpc};
use super::topology::{Names, close, short};
use crate::backoff;
use crate::queue::{Dead, Depth, Desk, QueueError};
use std::time::Duration;

/// The dead read at once: the largest prefetch there is.
const READ_MAX: u16 = u16::MAX;

pub(super) struct RabbitDesk {
    names: Arc<Names>,
    link: Arc<Link>,
}

impl RabbitDesk {
    pub(super) fn new(names: Arc<Names>, link: Arc<Link>) -> RabbitDesk {
        RabbitDesk { names, link }
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
    async fn dead_once(&self) -> Result<Vec<Dead>, QueueError> {
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
        let dead = read_dead(&channel, self.names.dead().as_str()).await;
        let unlocked =
            rpc("unlock the dead", channel.queue_delete(lock, lapin::options::QueueDeleteOptions::default())).await;
        close(&channel).await;
        unlocked?;
        dead
    }
}

#[async_trait]
impl Desk for RabbitDesk {
    async fn depths(&self) -> Result<Vec<Depth>, QueueError> {
        self.link.patiently(|| self.depths_once()).await
    }

    async fn dead(&self) -> Result<Vec<Dead>, QueueError> {
        self.link.patiently(|| self.dead_once()).await
    }
}

async fn look(channel: &Channel, name: &str) -> Result<Queue, QueueError> {
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    rpc("look at a queue", channel.queue_declare(short(name), passive, FieldTable::default())).await
}

/// Take every message, give all back, and leave when the queue shows them again.
async fn read_dead(channel: &Channel, name: &str) -> Result<Vec<Dead>, QueueError> {
    let count = look(channel, name).await?.message_count().min(READ_MAX.into());
    if count == 0 {
        return Ok(Vec::new());
    }
    rpc("basic.qos", channel.basic_qos(READ_MAX, BasicQosOptions::default())).await?;
    let tag = short("imagewright-dead-reader");
    let options = BasicConsumeOptions::default();
    let mut messages =
        rpc("basic.consume", channel.basic_consume(short(name), tag.clone(), options, FieldTable::default())).await?;
    let mut dead = Vec::new();
    let mut last = 0;
    while dead.len() < usize::try_from(count).unwrap_or(usize::MAX) {
        let next = rpc("read the dead", async { messages.next().await.transpose() }).await?;
        let Some(message) = next else { break };
        last = message.delivery_tag;
        dead.push(Dead {
            attempts: envelope::counts(&message.properties).attempt,
            first_at: envelope::counts(&message.properties).first_at,
            last_at: envelope::last_at(&message.properties),
            burial: envelope::burial(&message.properties),
            payload: message.data,
        });
    }
    rpc("basic.cancel", channel.basic_cancel(tag, BasicCancelOptions::default())).await?;
    let back = BasicNackOptions { multiple: true, requeue: true };
    rpc("basic.nack", channel.basic_nack(last, back)).await?;
    while look(channel, name).await?.message_count() < count {
        tokio::time::sleep(backoff::jitter(Duration::from_millis(10))).await;
    }
    Ok(dead)
}
