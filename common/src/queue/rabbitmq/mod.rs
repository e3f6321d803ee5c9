//! Jobs on RabbitMQ 3.10 to 4.x with default settings. Only this folder names the AMQP client.

mod consumer;
mod desk;
mod envelope;
mod link;
mod log;
mod publisher;
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
    let publish = Arc::new(Link::new(hosts, &format!("{role}/publish"), names.clone(), patience));
    let consume = Arc::new(Link::new(hosts, &format!("{role}/consume"), names.clone(), patience));
    publish.ready().await?;
    let publisher = Arc::new(Publisher::new(publish));
    Ok(Backend {
        queue: Arc::new(consumer::RabbitQueue::new(names.clone(), publisher.clone(), consume.clone())),
        log: Arc::new(log::RabbitLog::new(names.clone(), publisher.clone(), consume.clone())),
        desk: Arc::new(desk::RabbitDesk::new(names, consume)),
    })
}
