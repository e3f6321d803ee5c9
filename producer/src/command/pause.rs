//! `imagewright pause` and `imagewright resume`

use clap::Args;
use imagewright_common::job::Kind;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::report;

/// Take no new jobs until `resume`; all kinds, or those named.
///
/// Every worker of the namespace heeds it within a few seconds, and those that start later too. What has begun goes on to
/// its end. Jobs can still be enqueued: they wait.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright pause --kind build     # while the cloud that builds is being repaired
  imagewright pause")]
pub(crate) struct Pause {
    #[command(flatten)]
    kinds: Kinds,
}

/// End a pause; of all kinds, or of those named.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright resume")]
pub(crate) struct Resume {
    #[command(flatten)]
    kinds: Kinds,
}

#[derive(Debug, Args)]
struct Kinds {
    /// Only jobs of this kind; several by commas.
    #[arg(long = "kind", value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<Kind>,
}

impl Kinds {
    fn named(self) -> Vec<Kind> {
        if self.kinds.is_empty() { Kind::ALL.to_vec() } else { self.kinds }
    }
}

#[derive(Serialize)]
struct Paused {
    paused: Vec<&'static str>,
}

pub(crate) async fn pause(context: &Context, options: Pause) -> Result<Exit, Failure> {
    let desk = context.open().await?.desk;
    for kind in options.kinds.named() {
        desk.pause(kind).await?;
    }
    print(context, &desk.paused().await?)
}

pub(crate) async fn resume(context: &Context, options: Resume) -> Result<Exit, Failure> {
    let desk = context.open().await?.desk;
    for kind in options.kinds.named() {
        desk.resume(kind).await?;
    }
    print(context, &desk.paused().await?)
}

/// What is paused now.
fn print(context: &Context, paused: &[Kind]) -> Result<Exit, Failure> {
    let paused: Vec<&str> = paused.iter().map(|kind| kind.as_str()).collect();
    if context.json {
        report::json(&Paused { paused })?;
    } else {
        report::result(&paused.iter().map(|kind| format!("{kind}\n")).collect::<String>())?;
    }
    Ok(Exit::Ok)
}
