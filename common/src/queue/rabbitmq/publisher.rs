//! Publishing that succeeds only when the broker has confirmed, and is repeated until it has.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::link::{Link, RPC_TIMEOUT, rpc, silent, sorted};
use super::state::blocked;
use crate::queue::QueueError;

/// Progress is worth no longer a wait than this.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Publisher {
    link: Arc<Link>,
    confirmed: Mutex<Option<Arc<Channel>>>,
    /// For the stream alone. When a stream's leader dies, RabbitMQ (seen on 3.10.8) sends again what it had not written
    /// under its number on the channel, instead of its number on the stream. With other messages in between, the next
    /// ones then seem to be duplicates: they are confirmed, and never written.
    log: Mutex<Option<Arc<Channel>>>,
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
        Publisher { link, confirmed: Mutex::new(None), log: Mutex::new(None), careless: Mutex::new(None) }
    }

    pub(super) async fn close(&self) {
        self.link.close().await;
    }

    /// Returns once the broker answers for the message. A repeat may leave two; jobs bear that.
    pub(super) async fn publish(
        &self,
        to: &To,
        payload: &[u8],
        properties: &BasicProperties,
    ) -> Result<(), QueueError> {
        self.link.patiently(|| self.once(&self.confirmed, to, payload, properties)).await
    }

    /// The same for the stream `log`.
    pub(super) async fn append(
        &self,
        log: ShortString,
        payload: &[u8],
        properties: &BasicProperties,
    ) -> Result<(), QueueError> {
        let to = To::queue(log);
        self.link.patiently(|| self.once(&self.log, &to, payload, properties)).await
    }

    /// One try. Whatever is not a plain acknowledgement costs the channel: the next try begins on a fresh one.
    async fn once(
        &self,
        slot: &Mutex<Option<Arc<Channel>>>,
        to: &To,
        payload: &[u8],
        properties: &BasicProperties,
    ) -> Result<(), QueueError> {
        let channel = self.channel(slot, true).await?;
        let result = self.confirmed(&channel, to, payload, properties).await;
        if let Err(error) = &result {
            tracing::debug!(%error, "not confirmed");
            forget(slot, &channel).await;
        }
        result
    }

    /// Publish and wait for the answer. What a broker that is short of memory has been given already is waited for, not
    /// repeated, by those who wait for ever.
    async fn confirmed(
        &self,
        channel: &Channel,
        to: &To,
        payload: &[u8],
        properties: &BasicProperties,
    ) -> Result<(), QueueError> {
        let mut publishing = std::pin::pin!(publish(channel, to, payload, properties));
        loop {
            match timeout(RPC_TIMEOUT, &mut publishing).await {
                Ok(result) => return result,
                Err(_) if self.link.is_blocked() && self.link.is_endless() => {}
                Err(_) => return Err(silent("basic.publish")),
            }
        }
    }

    /// Send and do not look back: for progress. What cannot be said at once is left unsaid.
    pub(super) async fn announce(
        &self,
        to: &To,
        payload: &[u8],
        properties: BasicProperties,
    ) -> Result<(), QueueError> {
        if self.link.is_blocked() {
            return Err(blocked());
        }
        match timeout(ANNOUNCE_TIMEOUT, self.say(to, payload, properties)).await {
            Ok(said) => said,
            Err(_) => Err(QueueError::Unavailable("no connection just now".to_owned())),
        }
    }

    async fn say(&self, to: &To, payload: &[u8], properties: BasicProperties) -> Result<(), QueueError> {
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

async fn publish(channel: &Channel, to: &To, payload: &[u8], properties: &BasicProperties) -> Result<(), QueueError> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publishing = async {
        channel.basic_publish(to.exchange.clone(), to.key.clone(), options, payload, properties.clone()).await?.await
    };
    match publishing.await.map_err(|error| sorted("basic.publish", &error))? {
        Confirmation::Ack(None) => Ok(()),
        Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned)) => {
            let (text, code) = (&returned.reply_text, returned.reply_code);
            Err(QueueError::Returned(format!("{text} ({code})")))
        }
        Confirmation::Nack(None) => Err(QueueError::Unknown("refused by the broker for now (nack)".to_owned())),
        Confirmation::NotRequested => Err(QueueError::Unknown("the channel is not in confirm mode".to_owned())),
    }
}
