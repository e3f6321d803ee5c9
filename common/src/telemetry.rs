//! What a process says about itself: its name in events, and its log, on stderr only.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt};

/// The environment variable that selects what is logged, in the syntax of `tracing_subscriber::EnvFilter`.
pub const VARIABLE: &str = "IMAGEWRIGHT_LOG";

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What went wrong for good.
    Error,
    /// And what went wrong for now.
    Warn,
    /// And what was done.
    Info,
    /// And how.
    Debug,
    /// And every detail, libraries included.
    Trace,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The variable holds something else than a filter.
    #[error("{VARIABLE} is no log filter such as `info` or `imagewright_common=debug,warn`: {0}")]
    Filter(#[source] ParseError),
    /// There is one already.
    #[error("the log was set up twice")]
    Twice(#[source] TryInitError),
}

impl Level {
    const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

    /// Louder by `steps`, or quieter where they are negative.
    #[must_use]
    pub fn louder(self, steps: i8) -> Level {
        let at = Level::ALL.iter().position(|level| *level == self).unwrap_or_default();
        let at = at.saturating_add_signed(isize::from(steps)).min(Level::ALL.len() - 1);
        Level::ALL.get(at).copied().unwrap_or(self)
    }

    /// What this level means for us and for the libraries, which stay two steps quieter.
    fn directives(self) -> &'static str {
        match self {
            Level::Error => "error,lapin=off,rustls_platform_verifier=off",
            Level::Warn => "warn,lapin=off,rustls_platform_verifier=off",
            Level::Info => {
                "warn,lapin=off,rustls_platform_verifier=off,imagewright=info,imagewright_common=info,imagewright_worker=info"
            }
            Level::Debug => "info,imagewright=debug,imagewright_common=debug,imagewright_worker=debug",
            Level::Trace => "trace",
        }
    }
}

/// Log to stderr. `default` holds unless `IMAGEWRIGHT_LOG` says otherwise; `steps` (one per `-v`, minus one per `-q`)
/// change the default and then beat the variable, as a flag does.
///
/// # Errors
/// [`TelemetryError`] when the variable is no filter, or the log was set up before.
pub fn init(default: Level, steps: i8, format: Format) -> Result<(), TelemetryError> {
    let variable = std::env::var(VARIABLE).ok().filter(|filter| !filter.trim().is_empty());
    let directives = match variable {
        Some(filter) if steps == 0 => filter,
        Some(_) | None => default.louder(steps).directives().to_owned(),
    };
    let filter = EnvFilter::try_new(directives).map_err(TelemetryError::Filter)?;
    let lines = fmt::layer::<Registry>().with_writer(std::io::stderr);
    let layer = match format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().map_err(TelemetryError::Twice)
}

/// This process, as events name it: `host/pid`.
pub fn process_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}/{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_a_filter_and_steps_stop_at_the_ends() {
        for level in Level::ALL {
            assert!(EnvFilter::try_new(level.directives()).is_ok(), "{level:?}");
        }
        assert_eq!(Level::Warn.louder(2), Level::Debug);
        assert_eq!(Level::Warn.louder(100), Level::Trace);
        assert_eq!(Level::Warn.louder(-3), Level::Error);
    }

    #[test]
    fn the_process_names_its_host_and_itself() {
        let name = process_name();
        assert!(name.ends_with(&format!("/{}", std::process::id())) && name.len() > 2, "{name}");
    }
}
