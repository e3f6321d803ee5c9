//! What HTTP headers say of time (RFC 9110, 5.6.7 and 10.2.3), by the server's clock alone.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};

/// The longest wait that is believed of a server.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The server's clock, from the `Date` header.
pub(crate) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    parse(text(headers, &DATE)?)
}

/// `Retry-After`: seconds, or a date, which is held against the `Date` of the same answer. At most [`WAIT_MAX`].
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = text(headers, &RETRY_AFTER)?;
    let wait = match asked.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => until(headers, parse(asked)?)?,
    };
    Some(wait.min(WAIT_MAX))
}

/// How long it is until then: not at all where that has passed.
pub(crate) fn until(headers: &HeaderMap, then: Timestamp) -> Option<Duration> {
    Some(Duration::try_from(then.duration_since(date(headers)?)).unwrap_or_default())
}

/// A header as it reads, without the space around it.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn parse(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}
