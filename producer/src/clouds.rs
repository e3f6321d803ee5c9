//! The clouds that a command looks at: which ones, and several at once.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use imagewright_common::job::CloudName;
use imagewright_common::openstack::{Clouds, Glance};
use imagewright_common::store::CloudPool;
use tokio::task::JoinSet;

use crate::exit::{Exit, Failure};
use crate::report;

/// A cloud that does not let us in is said to be unreachable within 10 s; what it then lists may take longer.
const PATIENCE: Duration = Duration::from_millis(9_500);

/// What `--cloud` said, each once; `OS_CLOUD` where it said nothing.
pub(crate) fn given(clouds: &[CloudName]) -> Result<Vec<CloudName>, Failure> {
    let mut seen = HashSet::new();
    let mut clouds: Vec<CloudName> = clouds.iter().filter(|cloud| seen.insert(*cloud)).cloned().collect();
    if let (true, Ok(cloud)) = (clouds.is_empty(), std::env::var("OS_CLOUD")) {
        let cloud: CloudName = cloud.parse().map_err(|error| Failure::usage(format!("OS_CLOUD: {error}")))?;
        clouds.push(cloud);
    }
    Ok(clouds)
}

/// At least one cloud.
pub(crate) fn required(clouds: &[CloudName]) -> Result<Vec<CloudName>, Failure> {
    let clouds = given(clouds)?;
    if clouds.is_empty() {
        return Err(Failure::usage("no cloud is named: give --cloud NAME, or set OS_CLOUD"));
    }
    Ok(clouds)
}

/// The clouds that clouds.yaml and the environment know.
pub(crate) fn pool() -> Result<Arc<CloudPool>, Failure> {
    let clouds = Clouds::load().map_err(|error| Failure::usage(error.to_string()))?;
    Ok(Arc::new(CloudPool::new(clouds)))
}

/// The Glance of a cloud that has let us in.
pub(crate) async fn reach(pool: &CloudPool, cloud: &CloudName) -> Result<Glance, Failure> {
    let glance = pool.glance(cloud).await?;
    match tokio::time::timeout(PATIENCE, glance.session().project_id()).await {
        Ok(Ok(_)) => Ok(glance),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => {
            Err(Failure::unreachable(format!("cloud {cloud} does not answer: check its auth_url and the network")))
        }
    }
}

/// What each cloud answers, asked at once, in the order of `clouds`. Those that fail are told of on stderr; the exit
/// code is that of the worst.
pub(crate) async fn each<T, F>(
    pool: &Arc<CloudPool>,
    clouds: &[CloudName],
    ask: impl Fn(CloudName, Glance) -> F + Clone + Send + 'static,
) -> (Vec<(CloudName, T)>, Exit)
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send,
{
    let mut tasks = JoinSet::new();
    for (place, cloud) in clouds.iter().cloned().enumerate() {
        let (pool, ask) = (Arc::clone(pool), ask.clone());
        tasks.spawn(async move {
            let answer = match reach(&pool, &cloud).await {
                Ok(glance) => ask(cloud.clone(), glance).await,
                Err(failure) => Err(failure),
            };
            (place, cloud, answer)
        });
    }
    let mut answers = Vec::new();
    let mut exit = Exit::Ok;
    while let Some(task) = tasks.join_next().await {
        match task {
            Ok((place, cloud, Ok(answer))) => answers.push((place, cloud, answer)),
            Ok((_, _, Err(failure))) => exit = told(exit, &failure),
            Err(error) => exit = told(exit, &Failure::internal(error.to_string())),
        }
    }
    answers.sort_by_key(|(place, _, _)| *place);
    (answers.into_iter().map(|(_, cloud, answer)| (cloud, answer)).collect(), exit)
}

fn told(exit: Exit, failure: &Failure) -> Exit {
    report::note(&format!("error: {failure}"));
    if exit == Exit::Unreachable { exit } else { failure.exit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_named_twice_is_one_cloud() {
        let clouds: Vec<CloudName> = ["b", "a", "b"].iter().map(|name| name.parse().unwrap()).collect();
        let given: Vec<String> = given(&clouds).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(given, ["b", "a"]);
    }

    #[test]
    fn a_cloud_that_does_not_answer_decides_the_exit_code() {
        let exit = told(Exit::Ok, &Failure::usage("no such cloud"));
        assert_eq!(exit, Exit::Usage);
        assert_eq!(told(exit, &Failure::unreachable("away")), Exit::Unreachable);
        assert_eq!(told(Exit::Unreachable, &Failure::usage("no such cloud")), Exit::Unreachable);
    }
}
