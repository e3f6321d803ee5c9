//! `imagewright dead`: the jobs that were given up.

mod list;
mod settle;
mod show;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Look at the jobs that were given up, and decide what becomes of them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright dead list
  imagewright dead show 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55
  imagewright dead requeue --all")]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List them, oldest first. Looking changes nothing.
    #[command(after_help = "\
Example:
  imagewright dead list --json | jq -r '.[] | select(.cloud == \"edge-1\") | .reason'")]
    List,
    /// Show one: its message, why it was given up, and each attempt's error, step, worker and request id.
    Show(show::Options),
    Requeue(settle::RequeueOptions),
    Discard(settle::DiscardOptions),
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    match options.command {
        Command::List => list::run(context).await,
        Command::Show(options) => show::run(context, options).await,
        Command::Requeue(options) => settle::requeue(context, options).await,
        Command::Discard(options) => settle::discard(context, options).await,
    }
}
