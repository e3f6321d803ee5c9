//! The commands, one file each.

pub(crate) mod base_image;
pub(crate) mod build;
pub(crate) mod cancel;
pub(crate) mod dead;
pub(crate) mod images;
pub(crate) mod latest_build_id;
pub(crate) mod log;
pub(crate) mod pause;
pub(crate) mod prune;
pub(crate) mod queues;
pub(crate) mod schedule;
pub(crate) mod schema;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod upload;
pub(crate) mod watch;

use crate::cli::Command;
use crate::context::Context;
use crate::exit::{Exit, Failure};

/// Do what was said.
pub(crate) async fn run(context: &Context, command: Command) -> Result<Exit, Failure> {
    match command {
        Command::Upload(options) => upload::run(context, options).await,
        Command::Build(options) => build::run(context, *options).await,
        Command::Snapshot(options) => snapshot::run(context, options).await,
        Command::BaseImage(options) => base_image::run(context, options).await,
        Command::Prune(options) => prune::run(context, options).await,
        Command::LatestBuildId(options) => latest_build_id::run(context, options).await,
        Command::Images(options) => images::run(context, options).await,
        Command::Status(options) => status::run(context, options).await,
        Command::Watch(options) => watch::run(context, options).await,
        Command::Log(options) => log::run(context, options).await,
        Command::Cancel(options) => cancel::run(context, options).await,
        Command::Queues(_) => queues::run(context).await,
        Command::Pause(options) => pause::pause(context, options).await,
        Command::Resume(options) => pause::resume(context, options).await,
        Command::Dead(options) => dead::run(context, options).await,
        Command::Schedule(options) => schedule::run(context, options).await,
        Command::Schema(options) => schema::run(&options),
    }
}
