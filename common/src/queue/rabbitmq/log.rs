//! The log of transitions is a stream; progress goes to an exchange, for whoever listens.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use uuid::Uuid;

use super::link::Link;
use super::publisher::{Publisher, To};
use super::reader::{Begin, LogReader};
use super::topology::{Names, short};
use crate::event::Event;
use crate::queue::{About, Lately, Log, QueueError, Reader, Until};

/// Marks the end of the log as it was when a reader came: everything confirmed before lies before its mark.
pub(super) const MARK: &str = "x-imagewright-mark";

/// Entries that are read of a long log by whoever asks what happened lately: some two seconds' worth. A broker sends an
/// entry that was appended by itself in 40 to 70 us, and it does so one after the other.
const NEWEST: u32 = 30_000;

pub(super) struct RabbitLog {
    names: Arc<Names>,
    publisher: Arc<Publisher>,
    link: Arc<Link>,
}

impl RabbitLog {
    pub(super) fn new(names: Arc<Names>, publisher: Arc<Publisher>, link: Arc<Link>) -> RabbitLog {
        RabbitLog { names, publisher, link }
    }

    async fn mark(&self) -> Result<String, QueueError> {
        let mark = Uuid::new_v4().to_string();
        let mut headers = FieldTable::default();
        headers.insert(short(MARK), AMQPValue::LongString(mark.as_str().into()));
        let properties = BasicProperties::default().with_headers(headers);
        self.publisher.append(self.names.log(), b"", &properties).await?;
        Ok(mark)
    }

    fn reader(&self, about: About, since: Timestamp, begin: Begin, mark: Option<String>) -> LogReader {
        LogReader::new(self.names.clone(), self.link.clone(), about, since, begin, mark)
    }
}

#[async_trait]
impl Log for RabbitLog {
    async fn append(&self, event: &Event) -> Result<(), QueueError> {
        let payload = encode(event)?;
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type(short("application/json"))
            .with_message_id(short(&event.id));
        self.publisher.append(self.names.log(), &payload, &properties).await?;
        self.announce(event).await;
        Ok(())
    }

    async fn announce(&self, event: &Event) {
        let Ok(payload) = encode(event) else { return };
        let key = format!("event.{}.{}", event.kind.as_deref().unwrap_or("unknown"), event.what.word());
        let to = To { exchange: self.names.events(), key: short(&key) };
        let properties = BasicProperties::default().with_content_type(short("application/json"));
        if let Err(error) = self.publisher.announce(&to, &payload, properties).await {
            tracing::debug!(%error, "nobody was told");
        }
    }

    async fn read_lately(&self, since: Timestamp) -> Result<Lately, QueueError> {
        let mark = self.mark().await?;
        let reader = |begin, mark| self.reader(About::All, since, begin, mark);
        let end = reader(Begin::LastChunk, None).first_offset().await?;
        let begin = end.saturating_sub(i64::from(NEWEST));
        let mut all = reader(Begin::Since, Some(mark.clone()));
        if all.first_offset().await? >= begin {
            return Ok(Lately { reader: Box::new(all), newest_only: None });
        }
        drop(all);
        let newest = reader(Begin::Offset(begin), Some(mark));
        Ok(Lately { reader: Box::new(newest), newest_only: Some(NEWEST) })
    }

    async fn read_about(&self, about: About, since: Timestamp, until: Until) -> Result<Box<dyn Reader>, QueueError> {
        let mark = match until {
            Until::Now => Some(self.mark().await?),
            Until::Ever | Until::Forever => None,
        };
        let mut reader = self.reader(about, since, Begin::Since, mark);
        reader.with_progress = until == Until::Forever;
        reader.open().await?;
        Ok(Box::new(reader))
    }
}

fn encode(event: &Event) -> Result<Vec<u8>, QueueError> {
    serde_json::to_vec(event).map_err(|error| QueueError::Refused(format!("event is not JSON: {error}")))
}
