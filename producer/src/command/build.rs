//! `imagewright build`

use clap::Args;
use imagewright_common::arch::Arch;
use imagewright_common::job::{
    Base, BuildSpec, CloudName, HostPort, ImageName, Keep, Prefix, RunnerVersion, Script, SecretName, Sha256Hex, Spec,
};
use url::Url;

use super::upload::fetchable;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{clouds, enqueue};

/// Build an image on one cloud, and send it to others.
///
/// A server is booted from the base, provisioned, cleaned, and made into an image; every other cloud gets a copy by a job
/// of its own. Nothing is built when nothing has changed since the newest image.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright build --name runner-noble-amd64 --arch amd64 --base noble --cloud build --upload-to edge-1,edge-2 --wait
  imagewright build --name golden --arch arm64 --base image:debian-13 --cloud build --flavor m1.small \\
      --script-url https://scripts.example.org/golden.sh --script-secret TOKEN --check 'systemctl is-system-running'")]
pub(crate) struct Options {
    /// What the image is called on the clouds; all revisions share the name.
    #[arg(long)]
    name: ImageName,
    /// What it runs on, and is built on: amd64, arm64, s390x, ppc64le or armhf.
    #[arg(long)]
    arch: Arch,
    /// What it is built from: focal, jammy, noble, resolute, their versions, or image:NAME-OR-ID of the build cloud.
    #[arg(long)]
    base: Base,
    /// Where it is built; OS_CLOUD when not said.
    #[arg(long)]
    cloud: Option<CloudName>,
    /// Where it goes. The cloud where it is built has it already.
    #[arg(long, value_name = "CLOUD[,CLOUD...]", value_delimiter = ',')]
    upload_to: Vec<CloudName>,
    /// How many revisions stay on each cloud, 1 to 99.
    #[arg(long, default_value_t)]
    keep: Keep,
    /// The flavor of the builder, by name or id; by default the smallest with 2 processors, 2 GiB and a disk of 20 GiB.
    #[arg(long, value_name = "NAME|ID")]
    flavor: Option<String>,
    /// The network of the builder, by name or id; by default the project's only one.
    #[arg(long, value_name = "NAME|ID")]
    network: Option<String>,
    /// The version of the runner agent, as in 2.330.0; `latest`, or `none`.
    #[arg(long, value_name = "VERSION")]
    runner_version: Option<RunnerVersion>,
    /// A script that is run on the builder as root; https.
    #[arg(long, value_name = "URL")]
    script_url: Option<Url>,
    /// The SHA-256 of the script, in hexadecimal. Without it whatever is there is run, and its digest recorded.
    #[arg(long, value_name = "HEX", requires = "script_url")]
    script_sha256: Option<Sha256Hex>,
    /// A secret of the workers that the script finds in its environment; may be repeated.
    #[arg(long, value_name = "NAME", requires = "script_url")]
    script_secret: Vec<SecretName>,
    /// Run on a server that was booted from the image; if it fails, the image goes nowhere.
    #[arg(long, value_name = "COMMAND")]
    check: Option<String>,
    /// How names of servers, key pairs and groups begin.
    #[arg(long, value_name = "NAME")]
    prefix: Option<Prefix>,
    /// The proxy of the builder.
    #[arg(long, value_name = "HOST:PORT")]
    proxy: Option<HostPort>,
    /// Build even if nothing has changed.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    enqueue: enqueue::Options,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let cloud = clouds::one(options.cloud)?;
    let script = match options.script_url {
        None => None,
        Some(url) => {
            fetchable(&url).map_err(|reason| Failure::usage(format!("spec.script.url: --script-url {reason}")))?;
            Some(Script { url, sha256: options.script_sha256, secrets: options.script_secret })
        }
    };
    let spec = Spec::Build(BuildSpec {
        name: options.name,
        arch: options.arch,
        base: options.base,
        cloud,
        upload_to: options.upload_to,
        keep: options.keep,
        flavor: options.flavor,
        network: options.network,
        runner_version: options.runner_version,
        prefix: options.prefix,
        proxy: options.proxy,
        script,
        check: options.check,
        force: options.force,
    });
    enqueue::run(context, vec![spec], &options.enqueue).await
}
