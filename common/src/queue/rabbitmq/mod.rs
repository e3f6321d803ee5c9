//! Jobs on RabbitMQ 3.10 to 4.x with default settings. Only this folder names the AMQP client.

mod consumer;
mod desk;
mod dial;
mod envelope;
mod legible;
mod link;
mod log;
mod pool;
mod publisher;
mod reader;
mod settle;
mod state;
mod tls;
mod topology;

use std::sync::Arc;

use super::{AmqpHost, Backend, Patience, QueueError};
use link::Link;
use publisher::Publisher;
use topology::Names;

/// Connect, declare everything, and give the three views.
pub(super) async fn open(
    hosts: &[AmqpHost],
    namespace: &str,
    role: &str,
    patience: Patience,
) -> Result<Backend, QueueError> {
    let names = Arc::new(Names::new(namespace));
    let publish = Link::new(hosts, &format!("{role}/publish"), names.clone(), patience);
    let consume = Link::new(hosts, &format!("{role}/consume"), names.clone(), patience);
    publish.ready().await?;
    let publisher = Arc::new(Publisher::new(publish));
    let queue = Arc::new(consumer::RabbitQueue::new(names.clone(), publisher.clone(), consume.clone()));
    Ok(Backend {
        queue: queue.clone(),
        log: Arc::new(log::RabbitLog::new(names.clone(), publisher.clone(), consume.clone())),
        up: consume.up(),
        desk: Arc::new(desk::RabbitDesk::new(names, consume, queue, publisher)),
    })
}
