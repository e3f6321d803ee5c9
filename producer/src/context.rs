//! What every command is given: how to reach the queue, and how to print.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use imagewright_common::queue::{self, Address, Backend, Patience, Queue, QueueError};
use imagewright_common::telemetry;

use crate::cli::{Format, Global};
use crate::config::QueueSetting;
use crate::exit::Failure;

/// A queue that is away is said to be within 10 s, the time to say it included.
const PATIENCE: Duration = Duration::from_secs(9);

/// Our role, in the name of the connection.
const ROLE: &str = "imagewright";

/// Said with every failure to reach the queue.
const NEXT: &str = "check that its server runs, and --queue, --queue-file or IMAGEWRIGHT_QUEUE";

/// What every command is given.
pub(crate) struct Context {
    pub(crate) namespace: String,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    /// This process, as events name it.
    pub(crate) by: String,
    queue: QueueSetting,
    opened: OnceLock<Arc<dyn Queue>>,
}

impl Context {
    pub(crate) fn new(global: &Global, queue: QueueSetting) -> Result<Context, Failure> {
        let namespace = global.namespace.clone();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if namespace.is_empty() || namespace.len() > 60 || !namespace.chars().all(fits) {
            return Err(Failure::usage("--namespace has 1 to 60 letters, digits, '-', '_' or '.'"));
        }
        Ok(Context {
            namespace,
            json: global.json || global.format == Format::Json,
            quiet: global.quiet > 0,
            by: telemetry::process_name(),
            queue,
            opened: OnceLock::new(),
        })
    }

    /// Open the queue; this declares all that belongs to it.
    pub(crate) async fn open(&self) -> Result<Backend, Failure> {
        let address = self.address()?;
        let opening = queue::open(&address, &self.namespace, ROLE, Patience::For(PATIENCE));
        match tokio::time::timeout(PATIENCE, opening).await {
            Ok(Ok(backend)) => {
                drop(self.opened.set(backend.queue.clone()));
                Ok(backend)
            }
            Ok(Err(error @ QueueError::Refused(_))) => {
                Err(Failure::from(error).and(&format!("the queue is {address}")))
            }
            Ok(Err(error)) => Err(Failure::from(error).and(&format!("the queue is {address}; {NEXT}"))),
            Err(_) => Err(Failure::unreachable(format!("no answer from the queue {address}; {NEXT}"))),
        }
    }

    /// Say goodbye to the queue, if it was opened.
    pub(crate) async fn close(&self) {
        if let Some(queue) = self.opened.get() {
            queue.close().await;
        }
    }

    fn address(&self) -> Result<Address, Failure> {
        let wrong = |place: &str, error: queue::AddressError| Failure::usage(format!("{place}: {error}"));
        match &self.queue {
            QueueSetting::Url(url) => url.parse().map_err(|error| wrong("--queue", error)),
            QueueSetting::File(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path);
                let text =
                    text.map_err(|error| Failure::usage(format!("--queue-file: cannot read {shown}: {error}")))?;
                text.trim().parse().map_err(|error| wrong(&format!("--queue-file {shown}"), error))
            }
            QueueSetting::Default => {
                Address::embedded(&|name| std::env::var(name).ok()).map_err(|error| wrong("--queue", error))
            }
        }
    }
}
