//! The end of everything that a build has on its cloud, found by the names that are its own.

use std::time::{Duration, Instant};

use imagewright_common::openstack::CloudErrorKind;
use tokio::time::sleep;

use super::{Build, Failure};
use crate::steps::failure::cloud;

/// How long a build that is given up is cleared away before it is left to others.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(2);

impl Build<'_> {
    /// Ask for the removal of what is there; what is still there then.
    pub(super) async fn tear_down(&self) -> Result<Vec<String>, Failure> {
        let mut left = Vec::new();
        for name in [&self.names.builder, &self.names.checker] {
            for server in self.servers(name).await? {
                if server.task_state.as_deref() != Some("deleting") {
                    match self.nova.delete_server(&server.id).await {
                        Ok(_) => {}
                        Err(error) if error.kind == CloudErrorKind::Conflict => {
                            tracing::info!(job.id = %self.message.id, %error, "the server cannot be deleted yet");
                        }
                        Err(error) => return Err(cloud(error)),
                    }
                }
                left.push(format!("server {}", server.id));
            }
        }
        self.nova.delete_keypair(&self.names.builder).await.map_err(cloud)?;
        for group in self.neutron.security_groups(&self.names.builder).await.map_err(cloud)? {
            match self.neutron.delete_security_group(&group.id).await {
                Ok(_) => {}
                // A port still has it.
                Err(error) if error.kind == CloudErrorKind::Conflict => {
                    left.push(format!("security group {}", group.id))
                }
                Err(error) => return Err(cloud(error)),
            }
        }
        Ok(left)
    }

    /// The same until nothing is left, or it takes too long.
    pub(super) async fn tear_down_patiently(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let left = self.tear_down().await?;
            if left.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                tracing::warn!(job.id = %self.message.id, left = left.join(", "), "left behind");
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }
}
