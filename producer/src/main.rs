//! `imagewright`: ask for images, and see what became of the asking.
//!
//! Reading order: [`cli`] (what can be said), [`config`] (flag, environment, file), [`command`] (one file per command),
//! [`enqueue`] and [`follow`] (what `--wait` does), [`report`] (what is shown).

mod cli;
mod clouds;
mod command;
mod config;
mod context;
mod display;
mod enqueue;
mod exit;
mod follow;
mod history;
mod report;
mod schedule;
mod story;
mod time;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use imagewright_common::telemetry::{self, Format, Level};

use crate::config::Parsed;
use crate::context::Context;
use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let outcome = match config::parse(&args) {
        Ok(Parsed::Run(settings)) => run(*settings),
        Ok(Parsed::Shown(exit)) => Ok(exit),
        Err(failure) => Err(failure),
    };
    match outcome {
        Ok(exit) => exit.into(),
        Err(failure) => {
            report::note(&format!("error: {failure}"));
            failure.exit.into()
        }
    }
}

fn run(settings: config::Settings) -> Result<Exit, Failure> {
    let config::Settings { cli, queue } = settings;
    let global = &cli.global;
    let steps = i8::try_from(global.verbose).unwrap_or(i8::MAX) - i8::try_from(global.quiet).unwrap_or(i8::MAX);
    telemetry::init(Level::Warn, steps, Format::Text).map_err(|error| Failure::usage(error.to_string()))?;
    let context = Context::new(global, queue)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::internal(format!("no runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        let outcome = command::run(&context, cli.command).await;
        context.close().await;
        outcome
    });
    // What still waits for a server that is away need not be waited for.
    runtime.shutdown_background();
    outcome
}
