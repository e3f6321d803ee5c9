//! `imagewright images`

use clap::Args;
use imagewright_common::job::{CloudName, ImageName};
use imagewright_common::openstack::{Glance, Image, ImageQuery};
use imagewright_common::store::{revision, stamp};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::clouds;
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::report::{self, Table};

/// List the images that our project owns, newest first.
///
/// OURS tells what this program made: yes when the stored bytes were verified, unverified before that, no for images
/// that were made otherwise.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright images --name noble --cloud edge-1,edge-2")]
pub(crate) struct Options {
    /// Only images of this name.
    #[arg(long)]
    name: Option<ImageName>,
    /// On these clouds; OS_CLOUD, or else every cloud of clouds.yaml, when not said.
    #[arg(long, value_name = "CLOUD[,CLOUD...]", value_delimiter = ',')]
    cloud: Vec<CloudName>,
}

#[derive(Debug, Serialize)]
struct Row {
    cloud: CloudName,
    id: String,
    name: Option<String>,
    arch: Option<String>,
    status: String,
    size: Option<u64>,
    created_at: Timestamp,
    asked_at: Option<Timestamp>,
    verified: bool,
    job: Option<Uuid>,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let pool = clouds::pool()?;
    let mut clouds = clouds::given(&options.cloud)?;
    if clouds.is_empty() {
        clouds = pool.names().await.into_iter().filter_map(|name| CloudName::try_from(name).ok()).collect();
    }
    if clouds.is_empty() {
        return Err(Failure::usage("no cloud is known: write a clouds.yaml, or set OS_CLIENT_CONFIG_FILE"));
    }
    let name = options.name;
    let (images, exit) = clouds::each(&pool, &clouds, move |cloud, glance| {
        let name = name.clone();
        async move { Ok(list(&glance, name.as_ref()).await?.iter().map(|image| row(&cloud, image)).collect::<Vec<_>>()) }
    })
    .await;
    let rows: Vec<Row> = images.into_iter().flat_map(|(_, rows)| rows).collect();
    if context.json {
        report::json(&rows)?;
    } else {
        report::result(&table(&rows).render())?;
    }
    Ok(exit)
}

async fn list(glance: &Glance, name: Option<&ImageName>) -> Result<Vec<Image>, Failure> {
    if let Some(name) = name {
        return Ok(revision::owned(glance, name).await?.value);
    }
    let owner = glance.session().project_id().await?;
    let query = |hidden| ImageQuery { owner: Some(owner.clone()), hidden, ..ImageQuery::default() };
    let mut images = glance.list(&query(false)).await?.value;
    images.extend(glance.list(&query(true)).await?.value);
    images.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| revision::order(b).cmp(&revision::order(a))));
    Ok(images)
}

fn row(cloud: &CloudName, image: &Image) -> Row {
    Row {
        cloud: cloud.clone(),
        id: image.id.clone(),
        name: image.name.clone(),
        arch: stamp::arch(image).map(|arch| arch.to_string()).or_else(|| image.architecture.clone()),
        status: image.status.to_string(),
        size: image.size,
        created_at: image.created_at,
        asked_at: stamp::asked_at(image),
        verified: stamp::is_verified(image),
        job: stamp::job(image),
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["NAME", "ARCH", "CLOUD", "ID", "STATUS", "SIZE", "CREATED", "OURS"]);
    for row in rows {
        let ours = match (row.job, row.verified) {
            (Some(_), true) => "yes",
            (Some(_), false) => "unverified",
            (None, _) => "no",
        };
        let cells = vec![
            report::word(row.name.as_deref()),
            report::word(row.arch.as_deref()),
            row.cloud.to_string(),
            row.id.clone(),
            row.status.clone(),
            row.size.map_or_else(|| "-".to_owned(), report::size),
            report::time(Some(row.created_at)),
            ours.to_owned(),
        ];
        table.row(cells, None);
    }
    table
}
