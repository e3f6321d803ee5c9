//! The clouds that a command looks at: which ones, and several at once.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use imagewright_common::job::CloudName;
use imagewright_common::openstack::{Clouds, Glance};
use imagewright_common::store::CloudPool;

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

/// The one cloud that `--cloud` said, else `OS_CLOUD`.
pub(crate) fn one(cloud: Option<CloudName>) -> Result<CloudName, Failure> {
    let clouds = required(cloud.as_slice())?;
    clouds.into_iter().next().ok_or_else(|| Failure::usage("no cloud is named"))
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
    let mut answers = Vec::new();
    let mut exit = Exit::Ok;
    for (cloud, answer) in all(pool, clouds, ask).await {
        match answer {
            Ok(answer) => answers.push((cloud, answer)),
            Err(failure) => exit = told(exit, &failure),
        }
    }
    (answers, exit)
}

/// What each cloud answers, or why it does not, asked at once, in the order of `clouds`.
pub(crate) async fn all<T, F>(
    pool: &Arc<CloudPool>,
    clouds: &[CloudName],
    ask: impl Fn(CloudName, Glance) -> F + Clone + Send + 'static,
) -> Vec<(CloudName, Result<T, Failure>)>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send,
{
    let begin = |cloud: &CloudName| {
        let (pool, ask, name) = (Arc::clone(pool), ask.clone(), cloud.clone());
        let asking = tokio::spawn(async move {
            let glance = reach(&pool, &name).await?;
            ask(name, glance).await
        });
        (cloud.clone(), asking)
    };
    let tasks: Vec<_> = clouds.iter().map(begin).collect();
    let mut answers = Vec::new();
    for (cloud, asking) in tasks {
        let answer = asking.await.unwrap_or_else(|error| Err(Failure::internal(error.to_string())));
        answers.push((cloud, answer));
    }
    answers
}

fn told(exit: Exit, failure: &Failure) -> Exit {
    report::note(&format!("error: {failure}"));
    worst(exit, failure.exit)
}

/// A cloud that does not answer decides the exit code: asking again later may help.
pub(crate) fn worst(exit: Exit, other: Exit) -> Exit {
    if exit == Exit::Unreachable { exit } else { other }
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
