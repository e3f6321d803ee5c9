//! How far a job of several steps has come: it travels with the message, for no worker keeps anything.

use std::time::Duration;

use imagewright_common::job::Message;
use imagewright_common::wire;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::verdict::{Ended, Failure, Sort};

/// What `message` says of its progress; a job that just begins has made none.
pub(super) fn load<T: DeserializeOwned + Default>(message: &Message) -> Result<T, Failure> {
    let Some(state) = message.progress.as_ref().and_then(|progress| progress.state.clone()) else {
        return Ok(T::default());
    };
    serde_json::from_value(state).map_err(|error| {
        let field = "progress.state".to_owned();
        Failure::plain(Sort::Rejected { field: Some(field) }, format!("progress.state: {error}; only workers write it"))
    })
}

/// The next step: when, what is waited for until then, and the jobs that follow from this one.
pub(super) struct Next {
    pub(super) after: Duration,
    pub(super) why: String,
    pub(super) children: Vec<Message>,
}

impl Next {
    /// It finds `state` in the message.
    pub(super) fn with<T: Serialize>(self, message: &Message, state: &T) -> Result<Ended, Failure> {
        let Next { after, why, children } = self;
        let mut message = message.clone();
        let encoded = serde_json::to_value(state).and_then(|state| {
            message.progress.get_or_insert_default().state = Some(state);
            wire::encode(&message)
        });
        match encoded {
            Ok(payload) => Ok(Ended::Next { payload, after, why, children }),
            Err(error) => Err(Failure::plain(Sort::Rejected { field: None }, error.to_string())),
        }
    }
}
