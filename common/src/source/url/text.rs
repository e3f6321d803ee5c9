//! Small texts, such as scripts, read whole.

use std::time::Duration;

use ::url::Url;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::UrlClient;
use crate::source::SourceError;

/// A small download in which nothing moves for this long is given up.
const STALL: Duration = Duration::from_secs(30);

/// What an address holds.
#[derive(Clone, Debug)]
pub struct Text {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Every address that was asked: the first redirects to the second, the last holds it.
    pub hops: Vec<Url>,
}

impl UrlClient {
    /// At most `most` bytes; `field` is blamed for what is refused.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn text(&self, url: &Url, field: &str, most: usize) -> Result<Text, SourceError> {
        let refuse = |reason: String| SourceError::Refused { field: field.to_owned(), reason };
        let mut download = self.get(url, field).await?;
        if download.length > most as u64 {
            return Err(refuse(format!("{} bytes are more than the {most} that are read", download.length)));
        }
        let mut bytes = Vec::new();
        loop {
            let slow = || SourceError::Transient { reason: "the download stalls".to_owned(), retry_after: None };
            match timeout(STALL, download.chunks.next()).await.map_err(|_| slow())? {
                Some(chunk) => bytes.extend_from_slice(&chunk?),
                None => break,
            }
            if bytes.len() > most {
                return Err(refuse(format!("more than the {most} bytes that are read")));
            }
        }
        if bytes.len() as u64 == download.length {
            Ok(Text { bytes, hops: download.hops })
        } else {
            Err(SourceError::Transient { reason: "the download ended early".to_owned(), retry_after: None })
        }
    }
}
