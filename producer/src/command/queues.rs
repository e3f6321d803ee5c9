//! `imagewright queues`

use clap::Args;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::report::{self, Table};

/// Set up the queues, and show how many jobs wait in each.
///
/// Opening declares the whole topology, so this is how to prepare a RabbitMQ vhost before other programs publish.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  imagewright queues --queue amqp://user:password@broker.example.org/images")]
pub(crate) struct Options {}

pub(crate) async fn run(context: &Context) -> Result<Exit, Failure> {
    let depths = context.open().await?.desk.depths().await?;
    if context.json {
        report::json(&depths)?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["QUEUE", "READY", "CONSUMERS"]);
    for depth in depths {
        table.row(vec![depth.queue, depth.ready.to_string(), depth.consumers.to_string()], None);
    }
    report::result(&table.render())?;
    Ok(Exit::Ok)
}
