//! `imagewright schema`

use clap::{Args, ValueEnum};
use imagewright_common::job;

use crate::exit::{Exit, Failure};
use crate::report;
use crate::schedule::file;

/// Print the JSON Schema (draft 2020-12) of the messages that may be published, or of the file of `schedule`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright schema > message-v1.json
  imagewright schema schedule > schedule-v1.json")]
pub(crate) struct Options {
    /// Of what.
    #[arg(value_enum, default_value_t = Subject::Message)]
    subject: Subject,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// The job message.
    Message,
    /// The file of desired images.
    Schedule,
}

pub(crate) fn run(options: &Options) -> Result<Exit, Failure> {
    match options.subject {
        Subject::Message => report::json(&job::schema())?,
        Subject::Schedule => report::json(&file::schema())?,
    }
    Ok(Exit::Ok)
}
