//! `imagewright latest-build-id`

use clap::Args;
use imagewright_common::arch::Arch;
use imagewright_common::job::{CloudName, ImageName};
use imagewright_common::store;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{clouds, report};

/// Print the id of the newest active image of a name, without a newline; nothing when there is none.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  openstack server create --image \"$(imagewright latest-build-id noble --cloud edge-1 --arch amd64)\" ...")]
pub(crate) struct Options {
    /// The name of the image.
    name: ImageName,
    /// On this one cloud; OS_CLOUD when not said.
    #[arg(long, value_delimiter = ',')]
    cloud: Vec<CloudName>,
    /// Only this architecture; the newest of all by default.
    #[arg(long)]
    arch: Option<Arch>,
    /// Also images that are not active, such as one that is being uploaded.
    #[arg(long)]
    any_status: bool,
}

#[derive(Serialize)]
struct Answer {
    id: Option<String>,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let clouds = clouds::required(&options.cloud)?;
    let [cloud] = clouds.as_slice() else { return Err(Failure::usage("--cloud names one cloud here")) };
    let pool = clouds::pool()?;
    clouds::reach(&pool, cloud).await?;
    let id = store::get_latest_build_id(&pool, cloud, &options.name, options.arch, options.any_status).await?;
    if context.json {
        report::json(&Answer { id })?;
    } else {
        report::result(&id.unwrap_or_default())?;
    }
    Ok(Exit::Ok)
}
