//! Durations and times as people write them.

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// `90m`, `1h 30m`, `7d`, `PT2H`; a day is 24 hours.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, String> {
    let span: Span = text.parse().map_err(|_| format!("{text:?} is no duration: write for example 90m, 24h or 7d"))?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("{text:?} has months or years, which are not all alike: write days, hours or minutes"))?;
    if duration.is_positive() { Ok(duration) } else { Err(format!("{text:?} is not longer than nothing")) }
}

/// When to begin reading: so long ago, or at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Ago(SignedDuration),
    At(Timestamp),
}

impl Since {
    pub(crate) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            Since::Ago(duration) => now.checked_sub(duration).unwrap_or(Timestamp::UNIX_EPOCH),
            Since::At(at) => at,
        }
    }
}

/// A duration, or an RFC 3339 time.
pub(crate) fn since(text: &str) -> Result<Since, String> {
    match text.parse::<Timestamp>() {
        Ok(at) => Ok(Since::At(at)),
        Err(_) => duration(text)
            .map(Since::Ago)
            .map_err(|_| format!("{text:?} is neither a duration such as 24h nor a time such as 2026-11-23T10:00:00Z")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_written() {
        let minutes = |text: &str| duration(text).map(|duration| duration.as_mins());
        assert_eq!(minutes("90m"), Ok(90));
        assert_eq!(minutes("24h"), Ok(1440));
        assert_eq!(minutes("1h 30m"), Ok(90));
        assert_eq!(minutes("7d"), Ok(7 * 1440));
        assert_eq!(minutes("PT2H"), Ok(120));
        for wrong in ["", "90", "soon", "1month", "-1h", "0s"] {
            assert!(minutes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn since_is_a_duration_or_a_time() {
        let now: Timestamp = "2026-11-23T10:00:00Z".parse().unwrap();
        assert_eq!(since("1h").unwrap().from(now).to_string(), "2026-11-23T09:00:00Z");
        assert_eq!(since("2026-11-01T00:00:00+01:00").unwrap().from(now).to_string(), "2026-10-31T23:00:00Z");
        assert!(since("yesterday").is_err());
    }
}
