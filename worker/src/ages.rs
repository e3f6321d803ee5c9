//! When the newest images were made: read from the clouds at start, every quarter of an hour, and once an upload ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imagewright_common::arch::Arch;
use imagewright_common::job::CloudName;
use imagewright_common::store::newest::newest;
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::metrics::{Look, Metrics};
use crate::steps::Tools;

/// Between two readings of all clouds.
const ROUND: Duration = Duration::from_secs(15 * 60);

/// How long further requests are waited for after one: many uploads end together.
const GATHER: Duration = Duration::from_secs(1);

/// The longest that one cloud may hold up the others.
const CLOUD_MAX: Duration = Duration::from_secs(60);

/// By name and architecture.
type Newest = BTreeMap<(String, Arch), Timestamp>;

/// Keep the metrics of images up to date. Ends with those who ask.
pub(crate) async fn follow(tools: Arc<Tools>, metrics: Arc<Metrics>, mut asked: UnboundedReceiver<Look>) {
    let mut rounds = interval(ROUND);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut shown: BTreeMap<CloudName, Newest> = BTreeMap::new();
    loop {
        let wanted = tokio::select! {
            _ = rounds.tick() => None,
            first = asked.recv() => match first {
                Some(first) => gather(first, &mut asked).await,
                None => return,
            },
        };
        let clouds = tools.clouds().await;
        clouds.iter().for_each(|cloud| metrics.cloud(cloud.as_str(), true));
        let gone: Vec<CloudName> = shown.keys().filter(|cloud| !clouds.contains(*cloud)).cloned().collect();
        for cloud in gone {
            metrics.cloud(cloud.as_str(), false);
            show(&metrics, &cloud, &shown.remove(&cloud).unwrap_or_default(), &Newest::new());
        }
        let mut reading = JoinSet::new();
        for cloud in clouds.into_iter().filter(|cloud| wanted.as_ref().is_none_or(|set| set.contains(cloud.as_str()))) {
            let tools = tools.clone();
            reading.spawn(async move { (timeout(CLOUD_MAX, read(&tools, &cloud)).await.ok().flatten(), cloud) });
        }
        while let Some(read) = reading.join_next().await {
            if let Ok((Some(now), cloud)) = read {
                show(&metrics, &cloud, shown.get(&cloud).unwrap_or(&Newest::new()), &now);
                shown.insert(cloud, now);
            }
        }
    }
}

/// The clouds that are asked for within a moment; none for all.
async fn gather(first: Look, asked: &mut UnboundedReceiver<Look>) -> Option<BTreeSet<String>> {
    sleep(GATHER).await;
    let mut looks = vec![first];
    while let Ok(look) = asked.try_recv() {
        looks.push(look);
    }
    looks.into_iter().collect()
}

/// None when the cloud does not say: what was known of it stays.
async fn read(tools: &Tools, cloud: &CloudName) -> Option<Newest> {
    let glance = match tools.pool.glance(cloud).await {
        Ok(glance) => glance,
        Err(error) => {
            tracing::warn!(%cloud, %error, "cannot tell how old its images are");
            return None;
        }
    };
    match newest(&glance, &tools.namespace).await {
        Ok(newest) => Some(newest),
        Err(error) => {
            tracing::warn!(%cloud, %error, "cannot tell how old its images are");
            None
        }
    }
}

fn show(metrics: &Metrics, cloud: &CloudName, before: &Newest, now: &Newest) {
    for ((name, arch), created) in now {
        metrics.image(cloud.as_str(), name, *arch, Some(created.as_second()));
    }
    for (name, arch) in before.keys().filter(|key| !now.contains_key(*key)) {
        metrics.image(cloud.as_str(), name, *arch, None);
    }
}
