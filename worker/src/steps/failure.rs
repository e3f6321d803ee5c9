//! Errors of the store, sorted for the verdict.

use imagewright_common::openstack::{CloudError, CloudErrorKind, ConfigError};
use imagewright_common::source::SourceError;
use imagewright_common::store::StoreError;

use crate::verdict::{Failure, Sort};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        match error {
            StoreError::Cloud(error) => cloud(error),
            StoreError::Config(error @ ConfigError::UnknownCloud { .. }) => {
                Failure::plain(Sort::UnknownCloud { field: "spec.cloud" }, format!("spec.cloud: {error}"))
            }
            StoreError::Config(error) => Failure::plain(Sort::Transient { after: None }, error.to_string()),
            StoreError::SourceCloud(error @ ConfigError::UnknownCloud { .. }) => {
                let field = "spec.source.image.cloud";
                Failure::plain(Sort::UnknownCloud { field }, format!("{field}: {error}"))
            }
            StoreError::SourceCloud(error) => Failure::plain(Sort::Transient { after: None }, error.to_string()),
            StoreError::Source(SourceError::Refused { field, reason }) => {
                let error = format!("{field}: {reason}");
                Failure::plain(Sort::Rejected { field: Some(field) }, error)
            }
            StoreError::Source(SourceError::Transient { reason, retry_after }) => {
                Failure::plain(Sort::Transient { after: retry_after }, reason)
            }
            StoreError::Source(SourceError::Changed { reason }) => {
                Failure::plain(Sort::Transient { after: None }, reason)
            }
            StoreError::Rejected { field, reason } => {
                Failure::plain(Sort::Rejected { field: Some(field.to_owned()) }, format!("{field}: {reason}"))
            }
            StoreError::Transient(reason) => Failure::plain(Sort::Transient { after: None }, reason),
        }
    }
}

pub(super) fn cloud(error: CloudError) -> Failure {
    let after = error.retry_after;
    let sort = match error.kind {
        CloudErrorKind::Unreachable
        | CloudErrorKind::Server
        | CloudErrorKind::Protocol
        | CloudErrorKind::Config
        | CloudErrorKind::NotFound
        | CloudErrorKind::Gone => Sort::Transient { after },
        CloudErrorKind::Busy | CloudErrorKind::Conflict | CloudErrorKind::Credentials => Sort::Busy { after },
        CloudErrorKind::Forbidden | CloudErrorKind::Rejected => Sort::Rejected { field: Some("spec".to_owned()) },
    };
    let silent = (error.kind == CloudErrorKind::Unreachable).then(|| error.cloud.clone());
    Failure { request_id: error.request_id.clone(), silent, ..Failure::plain(sort, error.to_string()) }
}
