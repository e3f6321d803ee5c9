//! Leftovers of builds whose jobs have ended: found by their stamps and names, seen twice, then removed. Everything else
//! is left alone: what other namespaces made, what the log does not know, what still goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imagewright_common::job::CloudName;
use imagewright_common::openstack::{CloudError, CloudErrorKind, Neutron, Nova};
use imagewright_common::store::retention::{History as _, Known};
use imagewright_common::store::stamp;
use jiff::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use uuid::Uuid;

use crate::history::LogHistory;
use crate::steps::Tools;

/// The longest that one cloud may hold up the others.
const CLOUD_MAX: Duration = Duration::from_secs(120);

/// Something that a build may have left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Leftover {
    Server(String),
    KeyPair(String),
    Group(String),
}

/// Look at every cloud that has Nova, `every` so often.
pub(crate) async fn follow(tools: Arc<Tools>, every: Duration) {
    let mut rounds = interval_at(Instant::now() + every, every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: BTreeMap<CloudName, BTreeSet<Leftover>> = BTreeMap::new();
    loop {
        rounds.tick().await;
        for cloud in tools.clouds().await {
            let before = seen.remove(&cloud).unwrap_or_default();
            match timeout(CLOUD_MAX, round(&tools, &cloud, &before)).await {
                Ok(Ok(now)) => drop(seen.insert(cloud, now)),
                Ok(Err(error)) => tracing::warn!(%cloud, %error, "cannot look for leftovers of builds"),
                Err(_) => tracing::warn!(%cloud, "it takes too long to look for leftovers of builds"),
            }
        }
    }
}

/// What is there of builds that have ended; what was there `before` as well is removed.
async fn round(tools: &Tools, cloud: &CloudName, before: &BTreeSet<Leftover>) -> anyhow::Result<BTreeSet<Leftover>> {
    let session = tools.pool.glance(cloud).await?.session().clone();
    if !session.has_service("compute").await? {
        return Ok(BTreeSet::new());
    }
    let (nova, neutron) = (Nova::new(session.clone()), Neutron::new(session));
    let history = LogHistory::new(tools.log.clone());
    let grace = tools.policy().leftover_grace;
    let mut left = BTreeSet::new();
    for (leftover, job) in candidates(&nova, &neutron, &tools.namespace).await? {
        match history.of(job).await {
            Known::Ended => {}
            Known::LastHeard(at) if silent_for(at) > grace => {}
            Known::LastHeard(_) => continue,
            Known::Nothing => {
                let why = "the log knows no such job; left alone";
                // Only a server says whose it is; what else has such a name may belong to another installation.
                match leftover {
                    Leftover::Server(_) => tracing::warn!(%cloud, job.id = %job, ?leftover, "{why}"),
                    Leftover::KeyPair(_) | Leftover::Group(_) => {
                        tracing::debug!(%cloud, job.id = %job, ?leftover, "{why}")
                    }
                }
                continue;
            }
        }
        left.insert(leftover);
    }
    for leftover in left.intersection(before) {
        tracing::warn!(%cloud, ?leftover, "removing what a build has left behind");
        if let Err(error) = remove(&nova, &neutron, leftover).await {
            tracing::warn!(%cloud, ?leftover, %error, "it cannot be removed yet");
        }
    }
    Ok(left)
}

fn silent_for(at: Timestamp) -> Duration {
    Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default()
}

async fn candidates(nova: &Nova, neutron: &Neutron, namespace: &str) -> Result<Vec<(Leftover, Uuid)>, CloudError> {
    let mut found = Vec::new();
    for server in nova.servers("").await? {
        let ours = server.metadata.get(stamp::NAMESPACE).is_some_and(|other| other == namespace);
        if let (true, Some(job)) = (ours, server.metadata.get(stamp::JOB).and_then(|id| Uuid::parse_str(id).ok())) {
            found.push((Leftover::Server(server.id), job));
        }
    }
    for name in nova.keypairs().await? {
        if let Some(job) = job_of(&name) {
            found.push((Leftover::KeyPair(name), job));
        }
    }
    for group in neutron.all_security_groups().await? {
        if let Some(job) = job_of(&group.name) {
            found.push((Leftover::Group(group.id), job));
        }
    }
    Ok(found)
}

/// The job in the name of a key pair or group: `<prefix>-build-<job>-<run>`.
fn job_of(name: &str) -> Option<Uuid> {
    let (rest, run) = name.rsplit_once('-')?;
    run.parse::<u32>().ok()?;
    let (rest, id) = rest.split_at_checked(rest.len().checked_sub(36)?)?;
    rest.ends_with("-build-").then(|| Uuid::parse_str(id).ok()).flatten()
}

async fn remove(nova: &Nova, neutron: &Neutron, leftover: &Leftover) -> Result<(), CloudError> {
    let removed = match leftover {
        Leftover::Server(id) => nova.delete_server(id).await,
        Leftover::KeyPair(name) => nova.delete_keypair(name).await,
        Leftover::Group(id) => neutron.delete_security_group(id).await,
    };
    match removed {
        // A port still has it; its server goes in the same round.
        Err(error) if error.kind == CloudErrorKind::Conflict => Ok(()),
        removed => removed.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_job_is_read_from_the_name_of_what_it_made() {
        let job = Uuid::from_u128(9);
        assert_eq!(job_of(&format!("runner-a-build-{job}-2")), Some(job));
        for other in
            ["default", "a-build-9-0", &format!("a-check-{job}-0"), &format!("a-build-{job}"), &format!("ö{job}-0")]
        {
            assert_eq!(job_of(other), None, "{other}");
        }
    }
}
