//! The worker: takes jobs from the queue and does them, one bounded step at a time.

mod ages;
mod builders;
mod cancel;
mod conclude;
mod content;
mod drain;
mod future;
mod guest;
mod handle;
mod history;
mod journal;
mod lanes;
mod ledger;
mod limits;
mod listen;
mod metrics;
mod notify;
mod options;
mod outside;
mod pauses;
mod room;
mod run;
mod scrape;
mod steps;
mod sweep;
mod verdict;
mod vitals;
mod work;

use std::io::Write as _;
use std::process::ExitCode;

use clap::CommandFactory as _;
use imagewright_common::telemetry::{self, Level};

use options::Options;

fn main() -> ExitCode {
    let parsed = Options::command().try_get_matches().and_then(|matches| Options::from_matches(&matches));
    let options = match parsed {
        Ok(options) => options,
        Err(error) => {
            let usage = error.use_stderr();
            drop(error.print());
            return if usage { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    if let Err(error) = telemetry::init(Level::Info, options.loudness(), options.log_format.into()) {
        drop(writeln!(std::io::stderr(), "error: {error}"));
        return ExitCode::from(64);
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(run::run(options));
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            tracing::error!(%error, "no runtime");
            ExitCode::from(70)
        }
    }
}
