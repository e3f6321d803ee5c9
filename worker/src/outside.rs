//! How the process is seen from outside: its metrics, its pages, and what the service manager is told.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::ages;
use crate::listen::{self, Pages};
use crate::metrics::{Look, Metrics};
use crate::notify::Notifier;
use crate::options::Options;
use crate::scrape::Scrape;
use crate::vitals::{Opened, Vitals};

/// Everything about it; ends with it.
pub(crate) struct Outside {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) notifier: Arc<Notifier>,
    vitals: Arc<Vitals>,
    /// Who asks for the ages of images, where anybody can see them.
    looks: Option<UnboundedReceiver<Look>>,
    tasks: Vec<AbortOnDrop>,
}

impl Outside {
    /// Before the queue is there, so that it can be seen that it is not.
    ///
    /// # Errors
    /// The address of `--listen` cannot be used.
    pub(crate) async fn start(options: &Options) -> anyhow::Result<Outside> {
        let (metrics, looks) = Metrics::new()?;
        let (vitals, notifier) = (Arc::new(Vitals::new()), Arc::new(Notifier::from_environment()));
        let mut tasks = vec![AbortOnDrop::spawn(notifier.clone().follow(vitals.clone()))];
        if let Some(address) = options.listen {
            let scrape = Scrape::new(metrics.clone(), vitals.clone(), &options.namespace);
            tasks.push(AbortOnDrop(listen::serve(address, Pages { vitals: vitals.clone(), scrape }).await?));
        }
        let looks = options.listen.map(|_| looks);
        Ok(Outside { metrics, notifier, vitals, looks, tasks })
    }

    /// The queue is open, and jobs are taken.
    pub(crate) fn opened(&mut self, opened: Opened) {
        if let Some(looks) = self.looks.take() {
            let following = ages::follow(opened.tools.clone(), self.metrics.clone(), looks);
            self.tasks.push(AbortOnDrop::spawn(following));
        }
        self.vitals.opened(opened);
    }

    /// No more jobs are taken.
    pub(crate) async fn stopping(&self) {
        self.vitals.stopping();
        self.notifier.stopping().await;
    }
}

/// A task that ends with whoever started it.
pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop {
        AbortOnDrop(tokio::spawn(task))
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
