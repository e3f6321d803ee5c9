//! The one place where what a cloud answered, or did not answer, becomes a typed error.

use std::error::Error;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName};

use super::message;
use crate::http_time;

/// A call to a cloud that failed. The text is a fragment that reads well after "failed to", and holds no
/// secret: no token, no password, no query string.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{operation} on cloud {cloud}: {}{message}{}{}",
    status.map(|status| format!("status {status}: ")).unwrap_or_default(),
    hint(*kind),
    request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default()
)]
pub struct CloudError {
    /// What the caller should do about it.
    pub kind: CloudErrorKind,
    /// The cloud's name in `clouds.yaml`.
    pub cloud: String,
    /// Method and path, such as `PUT /v2/images/ID/file`, without the query.
    pub operation: String,
    /// The HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// What the cloud said, without markup and secrets, at most 500 characters.
    pub message: String,
    /// The cloud's own id of the request (`x-openstack-request-id`), for its operators.
    pub request_id: Option<String>,
    /// How long the cloud asks us to wait.
    pub retry_after: Option<Duration>,
}

/// Errors of clouds, sorted by what the caller does next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloudErrorKind {
    /// No answer: connection, name, TLS, reset or time-out. A call that changes something may have worked.
    Unreachable,
    /// 5xx. A call that changes something may have worked.
    Server,
    /// 429, or a quota is used up (403, 409 or 413 whose text says so): later, not an error of the request.
    Busy,
    /// 404.
    NotFound,
    /// 410, such as an image that was deleted during its upload.
    Gone,
    /// 409.
    Conflict,
    /// 403.
    Forbidden,
    /// Keystone refused to give a token, or a service refused a fresh one.
    Credentials,
    /// 400, 413 without a quota, 415 and other 4xx: the same request will never work.
    Rejected,
    /// The answer is not what the API reference says.
    Protocol,
    /// Our own configuration: no such endpoint in the catalog, an unreadable CA file.
    Config,
}

/// What to do next, where the message of the cloud does not say.
fn hint(kind: CloudErrorKind) -> &'static str {
    match kind {
        CloudErrorKind::Unreachable => "; check the address, the network and the proxy",
        CloudErrorKind::Credentials => "; check this cloud's auth section in clouds.yaml",
        CloudErrorKind::Forbidden => "; check the roles of this user in its project",
        CloudErrorKind::Protocol => "; check that the endpoint is the OpenStack API itself",
        CloudErrorKind::Server
        | CloudErrorKind::Busy
        | CloudErrorKind::NotFound
        | CloudErrorKind::Gone
        | CloudErrorKind::Conflict
        | CloudErrorKind::Rejected
        | CloudErrorKind::Config => "",
    }
}

/// Where an error happened: the cloud and the call.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) cloud: String,
    pub(crate) operation: String,
}

impl Place {
    /// An error without an answer.
    pub(crate) fn error(&self, kind: CloudErrorKind, message: impl Into<String>) -> CloudError {
        CloudError {
            kind,
            cloud: self.cloud.clone(),
            operation: self.operation.clone(),
            status: None,
            message: message.into(),
            request_id: None,
            retry_after: None,
        }
    }

    /// A connection that failed: to which host, and the innermost cause, which is the one that helps.
    pub(crate) fn transport(&self, error: &reqwest::Error) -> CloudError {
        if error.is_builder() {
            return self.error(CloudErrorKind::Config, message::bounded(&innermost(error)));
        }
        let cause = if error.is_timeout() { "timed out".to_owned() } else { innermost(error) };
        let host = error.url().and_then(|url| Some((url.host_str()?, url.port_or_known_default()?)));
        let text = host.map_or(cause.clone(), |(host, port)| format!("no answer from {host}:{port}: {cause}"));
        self.error(CloudErrorKind::Unreachable, message::bounded(&text))
    }

    /// An answer that is an error by its status. `body` may be cut short; `secrets` are blotted out.
    pub(crate) fn answer(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], secrets: &[&str]) -> CloudError {
        let said = message::from_body(body, secrets);
        let reason = status.canonical_reason().unwrap_or("no reason given");
        // Glance heads its pages with what our text says already.
        let said = said.strip_prefix(&format!("{} {reason}", status.as_u16())).unwrap_or(&said).trim();
        let text = if said.is_empty() { reason.to_lowercase() } else { said.to_owned() };
        CloudError {
            kind: kind_of(status.as_u16(), &text),
            cloud: self.cloud.clone(),
            operation: self.operation.clone(),
            status: Some(status.as_u16()),
            message: text,
            request_id: request_id(headers),
            retry_after: http_time::retry_after(headers),
        }
    }
}

/// The table of statuses. Everything else in this crate goes by the kind.
fn kind_of(status: u16, message: &str) -> CloudErrorKind {
    match status {
        403 | 409 | 413 if names_a_quota(message) => CloudErrorKind::Busy,
        401 => CloudErrorKind::Credentials,
        403 => CloudErrorKind::Forbidden,
        404 => CloudErrorKind::NotFound,
        409 => CloudErrorKind::Conflict,
        410 => CloudErrorKind::Gone,
        429 => CloudErrorKind::Busy,
        408 => CloudErrorKind::Unreachable,
        400..=499 => CloudErrorKind::Rejected,
        500..=599 => CloudErrorKind::Server,
        _ => CloudErrorKind::Protocol,
    }
}

/// Glance says "storage quota" (413) and, with unified limits, "is over limit of" (413); Nova says "Quota
/// exceeded" (403); Neutron too (409). A size cap of Glance says neither.
fn names_a_quota(message: &str) -> bool {
    let message = message.to_lowercase();
    message.contains("quota") || message.contains("over limit")
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    // Only the outermost error knows the address, whose query may be a secret.
    if std::ptr::addr_eq(cause, error) { "the connection failed".to_owned() } else { cause.to_string() }
}

/// The cloud's own id of a request. Nova's older name is the second.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<String> {
    ["x-openstack-request-id", "x-compute-request-id"].into_iter().find_map(|name| {
        let value = headers.get(HeaderName::from_static(name))?.to_str().ok()?;
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        (plain && value.len() <= 64).then(|| value.to_owned())
    })
}
