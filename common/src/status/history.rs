//! The fold as retention asks it.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Fold, State};
use crate::store::retention::{History, Known};

#[async_trait]
impl History for Fold {
    async fn of(&self, job: Uuid) -> Known {
        let status = self.get(&job.to_string());
        match (status.state, status.updated_at) {
            (State::Succeeded | State::Failed | State::Cancelled, _) => Known::Ended,
            (State::Queued | State::Running | State::Waiting | State::Unknown, Some(at)) => Known::LastHeard(at),
            (State::Queued | State::Running | State::Waiting | State::Unknown, None) => Known::Nothing,
        }
    }
}
