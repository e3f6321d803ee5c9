//! `imagewright schema`

use clap::{Args, ValueEnum};
use imagewright_common::job;

use crate::exit::{Exit, Failure};
use crate::report;

/// Print the JSON Schema (draft 2020-12) of what other programs may publish.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright schema > message-v1.json")]
pub(crate) struct Options {
    /// Of what.
    #[arg(value_enum, default_value_t = Subject::Message)]
    subject: Subject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// The job message.
    Message,
}

pub(crate) fn run(options: &Options) -> Result<Exit, Failure> {
    match options.subject {
        Subject::Message => report::json(&job::schema())?,
    }
    Ok(Exit::Ok)
}
