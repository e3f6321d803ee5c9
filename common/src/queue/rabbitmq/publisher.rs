//! Publishing that succeeds only when the broker has confirmed, and is repeated until it has.

use std::sync::Arc;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;

use super::link::{Link, rpc};
use crate::queue::QueueError;

pub(super) struct Publisher {
    link: Arc<Link>,
    confirmed: Mutex<Option<Arc<Channel>>>,
    careless: Mutex<Option<Arc<Channel>>>,
}

/// Where a message goes.
#[derive(Clone)]
pub(super) struct To {
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
}

impl To {
    /// Straight to a queue, by the default exchange.
    pub(super) fn queue(name: ShortString) -> To {
        To { exchange: ShortString::default(), key: name }
    }
}

impl Publisher {
    pub(super) fn new(link: Arc<Link>) -> Publisher {
        Publisher { link, confirmed: Mutex::new(None), careless: Mutex::new(None) }
    }

    /// Returns once the broker answers for the message. A repeat may leave two; jobs bear that.
    pub(super) async fn publish(
        &self,
        to: &To,
        payload: &[u8],
        properties: &BasicProperties,
    ) -> Result<(), QueueError> {
        self.link.patiently(|| self.once(to, payload, properties)).await
    }

    /// One try. Whatever is not a plain acknowledgement costs the channel: the next try begins on a fresh one.
    async fn once(&self, to: &To, payload: &[u8], properties: &BasicProperties) -> Result<(), QueueError> {
        let channel = self.channel(&self.confirmed, true).await?;
        let result = confirmed(&channel, to, payload, properties).await;
        if let Err(error) = &result {
            forget(&self.confirmed, &channel).await;
            if matches!(error, QueueError::Returned(_)) {
                self.link.reset().await;
            }
        }
        result
    }

    /// Send and do not look back: for progress.
    pub(super) async fn announce(
        &self,
        to: &To,
        payload: &[u8],
        properties: BasicProperties,
    ) -> Result<(), QueueError> {
        let channel = self.channel(&self.careless, false).await?;
        let options = BasicPublishOptions::default();
        let sent = rpc(
            "basic.publish",
            channel.basic_publish(to.exchange.clone(), to.key.clone(), options, payload, properties),
        )
        .await;
        if sent.is_err() {
            forget(&self.careless, &channel).await;
        }
        sent.map(drop)
    }

    async fn channel(&self, slot: &Mutex<Option<Arc<Channel>>>, confirms: bool) -> Result<Arc<Channel>, QueueError> {
        let mut slot = slot.lock().await;
        if let Some(channel) = slot.as_ref().filter(|channel| channel.status().connected()) {
            return Ok(channel.clone());
        }
        let channel = self.link.channel().await?;
        if confirms {
            rpc("confirm.select", channel.confirm_select(ConfirmSelectOptions::default())).await?;
        }
        let channel = Arc::new(channel);
        *slot = Some(channel.clone());
        Ok(channel)
    }
}

async fn forget(slot: &Mutex<Option<Arc<Channel>>>, channel: &Arc<Channel>) {
    let mut slot = slot.lock().await;
    if slot.as_ref().is_some_and(|current| Arc::ptr_eq(current, channel)) {
        *slot = None;
    }
}

async fn confirmed(channel: &Channel, to: &To, payload: &[u8], properties: &BasicProperties) -> Result<(), QueueError> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publish = async {
        channel.basic_publish(to.exchange.clone(), to.key.clone(), options, payload, properties.clone()).await?.await
    };
    match rpc("basic.publish", publish).await? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            let (text, code) = (&returned.reply_text, returned.reply_code);
            Err(QueueError::Returned(format!("{text} ({code})")))
        }
        Confirmation::Nack(None) => Err(QueueError::Unknown("refused by the broker for now (nack)".to_owned())),
        Confirmation::NotRequested => Err(QueueError::Unknown("the channel is not in confirm mode".to_owned())),
    }
}
