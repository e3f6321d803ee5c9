//! What one scrape gets: the counts, and what has to be looked up for it. Nothing here waits for a queue that is away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::vitals::{Opened, Vitals};

/// How old the depths of the queues may be.
const DEPTHS_AGE: Duration = Duration::from_secs(5);

/// The longest that a scrape waits for them.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) struct Scrape {
    metrics: Arc<Metrics>,
    vitals: Arc<Vitals>,
    namespace: String,
    /// When the depths were last read. Held while they are being read.
    read_at: Mutex<Option<Instant>>,
}

impl Scrape {
    pub(crate) fn new(metrics: Arc<Metrics>, vitals: Arc<Vitals>, namespace: &str) -> Scrape {
        Scrape { metrics, vitals, namespace: namespace.to_owned(), read_at: Mutex::default() }
    }

    /// Every metric as it is now.
    pub(crate) async fn text(&self) -> String {
        self.metrics.is_connected(self.vitals.is_connected());
        if let Some(opened) = self.vitals.open() {
            self.metrics.logins(&opened.tools.pool.logins().await);
            self.read_depths(opened).await;
        }
        self.metrics.text()
    }

    /// Depths that cannot be read now are not known: old ones would look like news.
    async fn read_depths(&self, opened: &Opened) {
        let Ok(mut read_at) = self.read_at.try_lock() else { return };
        if self.vitals.is_connected() && read_at.is_some_and(|at| at.elapsed() < DEPTHS_AGE) {
            return;
        }
        *read_at = None;
        let depths = match self.vitals.is_connected() {
            true => timeout(PATIENCE, opened.backend.desk.depths()).await.ok().and_then(Result::ok),
            false => None,
        };
        if depths.is_some() {
            *read_at = Some(Instant::now());
        }
        self.metrics.depths(&depths.unwrap_or_default(), &self.namespace);
    }
}
