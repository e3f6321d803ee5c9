//! What can be said on the command line. The options of a command stand in its own file.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::{
    base_image, build, cancel, dead, images, latest_build_id, log, pause, prune, queues, schedule, schema, snapshot,
    status, upload, watch,
};

/// Keep VM images fresh on many OpenStack clouds.
///
/// A job asks for one thing on one cloud, such as "this file as image NAME on cloud C". This program puts jobs on a
/// queue and shows what becomes of them; `imagewright-worker`, on this machine or others, does them.
#[derive(Debug, Parser)]
#[command(name = "imagewright", version, arg_required_else_help = true, after_help = AFTER, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER: &str = "\
Examples:
  imagewright upload --name noble --arch amd64 --cloud edge-1,edge-2 --file /srv/noble.img --wait
  imagewright status --since 2h
  imagewright latest-build-id noble --cloud edge-1

Every option can also be set by a variable, IMAGEWRIGHT_ and the option in capitals
(--queue-file: IMAGEWRIGHT_QUEUE_FILE), and in the file named by --config:

  queue = \"amqp://user:password@broker.example.org/images\"
  cloud = [\"edge-1\", \"edge-2\"]
  [upload]
  keep = 3

A flag beats the variable, the variable beats the file. Clouds come from clouds.yaml, as for
the openstack command.

Exit codes: 0 done; 1 a job that was waited for failed; 64 wrong usage or configuration;
66 unknown job; 69 the queue or a cloud does not answer; 70 internal error; 130 interrupted.";

/// What holds for every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The queue: amqp://, amqps:// (several, separated by commas, are hosts of one cluster) or sqlite:PATH; by default
    /// a file of this user.
    #[arg(long, global = true, value_name = "URL[,URL...]")]
    pub(crate) queue: Option<String>,
    /// A file that holds what --queue would say; keeps a password out of the list of processes.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) queue_file: Option<PathBuf>,
    /// Tells several installations on one queue server apart.
    #[arg(long, global = true, value_name = "NAME", default_value = "imagewright")]
    pub(crate) namespace: String,
    /// A TOML file with options; see the end of `imagewright --help`.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print the result as one JSON document; the same as -f json.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How to print the result.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Log more to stderr; twice for more.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log less, and show no progress.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) quiet: u8,
}

/// How a result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Upload(upload::Options),
    Build(Box<build::Options>),
    Snapshot(snapshot::Options),
    BaseImage(base_image::Options),
    Prune(prune::Options),
    LatestBuildId(latest_build_id::Options),
    Images(images::Options),
    Status(status::Options),
    Watch(watch::Options),
    Log(log::Options),
    Cancel(cancel::Options),
    Queues(queues::Options),
    Pause(pause::Pause),
    Resume(pause::Resume),
    Dead(dead::Options),
    Schedule(schedule::Options),
    Schema(schema::Options),
}
