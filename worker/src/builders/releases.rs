//! Releases of the runner agent, asked for once where many builds need the same: GitHub answers only 60 requests in an hour
//! to an address that it does not know (GitHub Docs: "Rate limits for the REST API").

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use imagewright_common::source::SourceError;
use tokio::time::Instant;
use url::Url;

/// How long an answer holds: there is a release every few weeks.
const ANSWER_KEPT: Duration = Duration::from_secs(5 * 60);

/// How long a failure does: for those who asked at the same time.
const FAILURE_KEPT: Duration = Duration::from_secs(5);

/// Addresses of which something is known; a few, for versions are the choice of whoever asks for a build.
const KNOWN_MAX: usize = 16;

type Answer = Result<Arc<[u8]>, SourceError>;

/// See the module.
#[derive(Default)]
pub(crate) struct Releases {
    known: Mutex<HashMap<Url, Arc<tokio::sync::Mutex<Option<Known>>>>>,
}

struct Known {
    answer: Answer,
    until: Instant,
}

impl Releases {
    /// What is at `url`, by `fetch` unless it is known; whoever asks meanwhile waits for the same answer.
    pub(crate) async fn ask(
        &self,
        url: &Url,
        fetch: impl Future<Output = Result<Vec<u8>, SourceError>> + Send,
    ) -> Answer {
        let place = self.place(url);
        let mut place = place.lock().await;
        if let Some(known) = place.as_ref().filter(|known| Instant::now() < known.until) {
            return known.answer.clone();
        }
        let answer: Answer = fetch.await.map(Arc::from);
        *place = Some(Known { answer: answer.clone(), until: Instant::now() + kept(&answer) });
        answer
    }

    fn place(&self, url: &Url) -> Arc<tokio::sync::Mutex<Option<Known>>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX && !known.contains_key(url) {
            known.clear();
        }
        known.entry(url.clone()).or_default().clone()
    }
}

fn kept(answer: &Answer) -> Duration {
    match answer {
        Ok(_) => ANSWER_KEPT,
        // Nobody asks before the server wants to be asked.
        Err(SourceError::Transient { retry_after: Some(after), .. }) => (*after).clamp(FAILURE_KEPT, ANSWER_KEPT),
        Err(SourceError::Transient { .. } | SourceError::Refused { .. } | SourceError::Changed { .. }) => FAILURE_KEPT,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{advance, sleep};

    use super::*;

    fn url(version: usize) -> Url {
        format!("https://api.example.org/releases/tags/v{version}").parse().unwrap()
    }

    fn busy(after: Option<u64>) -> SourceError {
        SourceError::Transient { reason: "busy".to_owned(), retry_after: after.map(Duration::from_secs) }
    }

    /// Asks, and counts what the server is asked.
    async fn ask(releases: &Releases, count: &AtomicUsize, told: Result<Vec<u8>, SourceError>) -> Answer {
        let fetch = async {
            count.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_secs(1)).await;
            told
        };
        releases.ask(&url(0), fetch).await
    }

    #[tokio::test(start_paused = true)]
    async fn builds_of_one_slot_ask_once_and_later_ones_again() {
        let (releases, count) = (Arc::new(Releases::default()), Arc::new(AtomicUsize::new(0)));
        let builds: Vec<_> = (0..60)
            .map(|_| {
                let (releases, count) = (releases.clone(), count.clone());
                tokio::spawn(async move { ask(&releases, &count, Ok(b"v1".to_vec())).await })
            })
            .collect();
        for build in builds {
            assert_eq!(&*build.await.unwrap().unwrap(), b"v1");
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        advance(ANSWER_KEPT).await;
        assert_eq!(&*ask(&releases, &count, Ok(b"v2".to_vec())).await.unwrap(), b"v2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_wants_to_be_left_alone_is() {
        let (releases, count) = (Releases::default(), AtomicUsize::new(0));
        for (wait, asked) in [(0, 1), (59, 1), (2, 2)] {
            advance(Duration::from_secs(wait)).await;
            assert_eq!(ask(&releases, &count, Err(busy(Some(60)))).await, Err(busy(Some(60))));
            assert_eq!(count.load(Ordering::Relaxed), asked, "{wait}");
        }
        let (releases, count) = (Releases::default(), AtomicUsize::new(0));
        assert_eq!(ask(&releases, &count, Err(busy(None))).await, Err(busy(None)));
        assert_eq!(ask(&releases, &count, Ok(b"v1".to_vec())).await, Err(busy(None)));
        advance(FAILURE_KEPT).await;
        assert!(ask(&releases, &count, Ok(b"v1".to_vec())).await.is_ok());
    }

    #[tokio::test]
    async fn little_is_kept_of_much() {
        let releases = Releases::default();
        for version in 0..10 * KNOWN_MAX {
            releases.ask(&url(version), async { Ok(Vec::new()) }).await.unwrap();
            assert!(releases.known.lock().unwrap().len() <= KNOWN_MAX);
        }
    }
}
