//! `imagewright prune`

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use imagewright_common::arch::Arch;
use imagewright_common::job::{CloudName, ImageName, Keep, PruneSpec, Spec};
use imagewright_common::policy::Policy;
use imagewright_common::status::Fold;
use imagewright_common::store::retention::{self, Action, Judgement, Request};
use imagewright_common::store::stamp;
use jiff::Timestamp;
use serde::Serialize;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::report::{self, Table};
use crate::{clouds, enqueue, history};

/// Delete older revisions of an image, and what dead jobs left of it.
///
/// Keeps the newest K per architecture. Never touched: the newest, protected images, those of other owners, and images
/// that this program did not make unless the workers' policy adopts the name. --dry-run shows what would go and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright prune --name noble --cloud edge-1,edge-2 --keep 3 --dry-run
  imagewright prune --name noble --cloud edge-1,edge-2 --keep 3 --wait")]
pub(crate) struct Options {
    /// The name of the image.
    #[arg(long)]
    name: ImageName,
    /// On these clouds; names of the workers' clouds.yaml. OS_CLOUD when not said.
    #[arg(long, value_name = "CLOUD[,CLOUD...]", value_delimiter = ',')]
    cloud: Vec<CloudName>,
    /// Only this architecture; each of them by default.
    #[arg(long)]
    arch: Option<Arch>,
    /// How many revisions stay, 1 to 99.
    #[arg(long)]
    keep: Keep,
    /// Show what would be done with each image and by which rule; enqueue nothing.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: the workers' policy file, which says what names they adopt.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    #[command(flatten)]
    enqueue: enqueue::Options,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let clouds = clouds::required(&options.cloud)?;
    if options.dry_run {
        return dry_run(context, options, clouds).await;
    }
    let Options { name, arch, keep, .. } = &options;
    let spec = |cloud| Spec::Prune(PruneSpec { name: name.clone(), cloud, keep: *keep, arch: *arch });
    enqueue::run(context, clouds.into_iter().map(spec).collect(), &options.enqueue).await
}

/// What a plan is made from.
struct Question {
    options: Options,
    policy: Policy,
    namespace: String,
    history: Fold,
}

async fn dry_run(context: &Context, options: Options, clouds: Vec<CloudName>) -> Result<Exit, Failure> {
    let policy = Policy::load(options.policy.as_deref()).map_err(|error| Failure::usage(error.to_string()))?;
    let pool = clouds::pool()?;
    let namespace = context.namespace.clone();
    let name = options.name.clone();
    let question = Arc::new(Question { options, policy, namespace, history: history(context).await });
    let (plans, exit) = clouds::each(&pool, &clouds, move |_, glance| {
        let question = Arc::clone(&question);
        async move {
            let request = question.request();
            let plan = retention::plan(&glance, &request, &question.history).await?;
            Ok(plan.judgements.iter().map(Row::new).collect::<Vec<_>>())
        }
    })
    .await;
    let plans: Vec<CloudPlan> =
        plans.into_iter().map(|(cloud, images)| CloudPlan { cloud, name: name.clone(), images }).collect();
    if context.json {
        report::json(&Plans { plans })?;
    } else {
        report::result(&table(&plans).render())?;
    }
    Ok(exit)
}

/// What the log knows of jobs tells dead leftovers from living ones. Without it they are left alone.
async fn history(context: &Context) -> Fold {
    let read = async { history::whole(&context.open().await?).await };
    read.await.unwrap_or_else(|failure: Failure| {
        report::note(&format!("warning: {failure}; without the log, what unfinished jobs left is shown as unknown"));
        Fold::default()
    })
}

impl Question {
    fn request(&self) -> Request<'_> {
        Request {
            name: &self.options.name,
            arch: self.options.arch,
            keep: self.options.keep,
            namespace: &self.namespace,
            adopt: &self.policy.adopt,
            leftover_grace: self.policy.leftover_grace,
        }
    }
}

#[derive(Serialize)]
struct Plans {
    plans: Vec<CloudPlan>,
}

#[derive(Serialize)]
struct CloudPlan {
    cloud: CloudName,
    name: ImageName,
    images: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    id: String,
    action: &'static str,
    rule: String,
    status: String,
    created_at: Timestamp,
    arch: Option<String>,
}

impl Row {
    fn new(judgement: &Judgement) -> Row {
        let image = &judgement.image;
        Row {
            id: image.id.clone(),
            action: match judgement.action {
                Action::Keep => "keep",
                Action::Delete => "delete",
                Action::Ignore => "ignore",
            },
            rule: judgement.rule.clone(),
            status: image.status.to_string(),
            created_at: image.created_at,
            arch: stamp::arch(image).map(|arch| arch.to_string()).or_else(|| image.architecture.clone()),
        }
    }
}

fn table(plans: &[CloudPlan]) -> Table {
    let mut table = Table::new(&["CLOUD", "ACTION", "ID", "ARCH", "STATUS", "CREATED", "RULE"]);
    for plan in plans {
        for image in &plan.images {
            let cells = vec![
                plan.cloud.to_string(),
                image.action.to_owned(),
                image.id.clone(),
                report::word(image.arch.as_deref()),
                image.status.clone(),
                report::time(Some(image.created_at)),
                image.rule.clone(),
            ];
            table.row(cells, None);
        }
    }
    table
}
