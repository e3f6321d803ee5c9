//! `imagewright snapshot`

use clap::Args;
use imagewright_common::arch::Arch;
use imagewright_common::job::{CloudName, ImageName, Keep, SnapshotSpec, Spec};

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{clouds, enqueue};

/// Make an image of a server, and keep only its newest revisions.
///
/// A server is not stopped unless --stop is given: the image of a running one is that of a machine whose plug was pulled.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright snapshot --name golden --arch amd64 --cloud edge-1 --server template --stop --wait")]
pub(crate) struct Options {
    /// What the image is called; all revisions share the name.
    #[arg(long)]
    name: ImageName,
    /// What it runs on: amd64, arm64, s390x, ppc64le or armhf; x86_64, aarch64 and other common words mean the same.
    #[arg(long)]
    arch: Arch,
    /// The cloud that has the server; OS_CLOUD when not said.
    #[arg(long)]
    cloud: Option<CloudName>,
    /// The server, by name or id.
    #[arg(long, value_name = "NAME|ID")]
    server: String,
    /// Stop the server first and start it afterwards, also when no image could be made.
    #[arg(long)]
    stop: bool,
    /// How many revisions stay, 1 to 99.
    #[arg(long, default_value_t)]
    keep: Keep,
    #[command(flatten)]
    enqueue: enqueue::Options,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let Options { name, arch, cloud, server, stop, keep, enqueue } = options;
    let cloud = clouds::one(cloud)?;
    let spec = Spec::Snapshot(SnapshotSpec { name, arch, server, cloud, keep, stop });
    enqueue::run(context, vec![spec], &enqueue).await
}
