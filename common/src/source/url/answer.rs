//! What a server's answer, or the lack of one, means.

use std::error::Error;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, RETRY_AFTER};

use super::SourceError;
use super::address::Private;
use crate::http_time::{WAIT_MAX, retry_after, text, until};

/// The shortest wait: some ask for 0, or until a moment that has passed.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// How many requests a server still answers, and when it will answer more, in seconds since 1970. GitHub refuses with 403
/// or 429 meanwhile (GitHub Docs: "Rate limits for the REST API").
const LIMIT_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const LIMIT_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A request that gave no body.
#[derive(Debug)]
pub(super) enum Failure {
    /// Never tried again.
    Refused(String),
    /// Tried again.
    Transient { reason: String, retry_after: Option<Duration> },
}

impl Failure {
    pub(super) fn transient(reason: String) -> Failure {
        Failure::Transient { reason, retry_after: None }
    }

    /// A request that was not answered.
    pub(super) fn of_request(error: reqwest::Error) -> Failure {
        let error = error.without_url();
        match private(&error) {
            Some(private) => Failure::Refused(private.to_string()),
            None => Failure::transient(chain(&error)),
        }
    }

    /// Blame `field`; `hop` is how many redirects were followed before.
    pub(super) fn of(self, field: &str, hop: usize) -> SourceError {
        let place = if hop == 0 { String::new() } else { format!("after {hop} redirects: ") };
        match self {
            Failure::Refused(reason) => SourceError::Refused { field: field.to_owned(), reason: place + &reason },
            Failure::Transient { reason, retry_after } => {
                SourceError::Transient { reason: format!("{field}: {place}{reason}"), retry_after }
            }
        }
    }
}

/// What a status other than 200 means.
pub(super) fn judge(status: StatusCode, headers: &HeaderMap) -> Failure {
    let passing = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    );
    let is_limited = text(headers, &LIMIT_REMAINING) == Some("0");
    let is_too_often = status == StatusCode::FORBIDDEN && (is_limited || headers.contains_key(RETRY_AFTER));
    if passing || is_too_often || status.is_server_error() {
        let after = retry_after(headers).or_else(|| until_reset(headers).filter(|_| is_limited));
        let why = if is_limited { ", its limit of requests is used up" } else { "" };
        let retry_after = after.map(|wait| wait.clamp(WAIT_MIN, WAIT_MAX));
        Failure::Transient { reason: format!("the server answered {status}{why}"), retry_after }
    } else {
        Failure::Refused(format!("the server answered {status}"))
    }
}

/// A body that broke off.
pub(super) fn broken(error: &reqwest::Error) -> SourceError {
    // Its address, query string and all, is in its own text only.
    let reason = error.source().map_or_else(|| "the body broke off".to_owned(), chain);
    SourceError::Transient { reason: format!("the download broke off: {reason}"), retry_after: None }
}

fn until_reset(headers: &HeaderMap) -> Option<Duration> {
    let reset = Timestamp::from_second(text(headers, &LIMIT_RESET)?.parse().ok()?).ok()?;
    until(headers, reset)
}

fn private<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Private> {
    causes(error).find_map(|error| error.downcast_ref())
}

/// An error and what caused it, the nearest first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let this = next?;
        next = this.source();
        Some(this)
    })
}

/// An error and its causes in one line, each text once.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if !line.contains(&cause) {
            let joint = if line.is_empty() { "" } else { ": " };
            line = line + joint + &cause;
        }
    }
    line
}
