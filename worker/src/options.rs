//! The command line of the worker.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use imagewright_common::arch::Arch;
use imagewright_common::job::Kind;
use imagewright_common::queue;
use imagewright_common::source::base_image;
use imagewright_common::telemetry::Format;

use crate::builders::Places;

/// Do image jobs: build with Nova, upload to Glance, verify, prune.
///
/// A worker takes jobs from the queue, as many at once as --concurrency says, until it is told to stop. Start as many
/// workers on as many machines as you like; each may be killed at any moment.
#[derive(Debug, Parser)]
#[command(
    name = "imagewright-worker",
    version,
    after_help = "Example:\n  imagewright-worker --queue-file /etc/imagewright/queue --file-root /srv/images\n\nThe clouds are those of clouds.yaml, found as openstacksdk finds it (OS_CLIENT_CONFIG_FILE, ./, ~/.config/openstack, /etc/openstack).\nSIGTERM stops taking jobs and finishes or hands back what runs within --grace; a second one ends at once.\n\nExit codes: 0 told to stop, or drained; 64 wrong options, files or credentials, which no restart mends; 69 the queue is away;\n70 internal error; 75 not drained: --drain-timeout is over, or it was told to stop."
)]
pub(crate) struct Options {
    /// Where jobs are queued: amqp://USER:PASSWORD@HOST/VHOST[,amqp://...], amqps://... or sqlite:PATH. By default an
    /// embedded queue in the state directory of the user.
    #[arg(long, env = "IMAGEWRIGHT_QUEUE", value_name = "URL", hide_env_values = true)]
    pub(crate) queue: Option<String>,

    /// A file that holds the queue's address, so that its password is not in the process list.
    #[arg(long, env = "IMAGEWRIGHT_QUEUE_FILE", value_name = "FILE")]
    pub(crate) queue_file: Option<PathBuf>,

    /// Prefix of everything on the queue; deployments with different ones do not see each other.
    #[arg(long, env = "IMAGEWRIGHT_NAMESPACE", default_value = "imagewright", value_name = "NAME")]
    pub(crate) namespace: String,

    /// Kinds of job to take; all by default.
    #[arg(long = "kind", env = "IMAGEWRIGHT_KIND", value_delimiter = ',', value_name = "KIND")]
    pub(crate) kinds: Vec<Kind>,

    /// Architectures to take jobs for; all by default. An upload needs no machine of its architecture.
    #[arg(long = "arch", env = "IMAGEWRIGHT_ARCH", value_delimiter = ',', value_name = "ARCH")]
    pub(crate) archs: Vec<Arch>,

    /// Jobs at once, by kind; a kind that is not named keeps its default. Of builds and snapshots only the first step
    /// counts: what waits for its cloud takes no place.
    #[arg(long, env = "IMAGEWRIGHT_CONCURRENCY", default_value_t, value_name = "KIND=N,...")]
    pub(crate) concurrency: Concurrency,

    /// Transfers at once to one cloud.
    #[arg(long, env = "IMAGEWRIGHT_CLOUD_TRANSFERS", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) cloud_transfers: u16,

    /// A directory that jobs may name files of; may be repeated. None: no job may.
    #[arg(long = "file-root", env = "IMAGEWRIGHT_FILE_ROOT", value_delimiter = ',', value_name = "DIR")]
    pub(crate) file_roots: Vec<PathBuf>,

    /// A host that jobs may fetch from, or '*' for any public one; may be repeated. None: no job may.
    #[arg(long = "url-host", env = "IMAGEWRIGHT_URL_HOST", value_delimiter = ',', value_name = "HOST")]
    pub(crate) url_hosts: Vec<String>,

    /// The OpenPGP keys that may sign lists of base images, armoured or not. The default is in Ubuntu's package
    /// ubuntu-keyring.
    #[arg(long, env = "IMAGEWRIGHT_KEYRING", value_name = "FILE", default_value = base_image::KEYRING)]
    pub(crate) keyring: PathBuf,

    /// What else messages may ask: a YAML file. --print-policy shows the default, with comments.
    #[arg(long, env = "IMAGEWRIGHT_POLICY", value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,

    /// A folder with one file per secret that scripts of builds may be given, by name; not readable for everybody.
    #[arg(long, env = "IMAGEWRIGHT_SECRETS_DIR", value_name = "DIR")]
    pub(crate) secrets_dir: Option<PathBuf>,

    /// At least 32 random bytes, from which the SSH keys of builds are derived; the same on every worker that builds for
    /// this queue. Made when it is not there. By default in the state directory of the user.
    #[arg(long, env = "IMAGEWRIGHT_BUILD_KEY_FILE", value_name = "FILE")]
    pub(crate) build_key_file: Option<PathBuf>,

    /// A folder of scripts (NN-NAME.sh) and lists (NAME.packages, .snaps, .services, .sysctl, .users) that replace or extend
    /// what every built image gets, by name; an empty file takes away.
    #[arg(long, env = "IMAGEWRIGHT_CONTENT_DIR", value_name = "DIR")]
    pub(crate) content_dir: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) places: Places,

    /// Seconds between two looks for leftovers of builds that have ended; what is there twice is removed. 0: never.
    #[arg(long, env = "IMAGEWRIGHT_SWEEP", default_value_t = 900, value_name = "SECONDS")]
    pub(crate) sweep: u64,

    /// Print the default policy and exit.
    #[arg(long)]
    pub(crate) print_policy: bool,

    /// Serve /healthz, /readyz and /metrics (Prometheus) by HTTP there, as in `127.0.0.1:9469` or `[::1]:9469`. There is no
    /// login: let only those reach it who may know names of images and clouds.
    #[arg(long, env = "IMAGEWRIGHT_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,

    /// Seconds that running work gets to finish or be handed back at SIGTERM.
    #[arg(long, env = "IMAGEWRIGHT_GRACE", default_value_t = 60, value_name = "SECONDS")]
    pub(crate) grace: u64,

    /// Exit once no job of these kinds and architectures is queued, waiting or running anywhere.
    #[arg(long, env = "IMAGEWRIGHT_DRAIN")]
    pub(crate) drain: bool,

    /// Give up draining after this many seconds, with exit code 75.
    #[arg(long, env = "IMAGEWRIGHT_DRAIN_TIMEOUT", value_name = "SECONDS", requires = "drain")]
    pub(crate) drain_timeout: Option<u64>,

    /// Say more; twice for every detail.
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Say less; twice for errors only.
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "verbose")]
    pub(crate) quiet: u8,

    /// How log lines look, on stderr.
    #[arg(long, env = "IMAGEWRIGHT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

impl Options {
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        if self.kinds.is_empty() { Kind::ALL.to_vec() } else { self.kinds.clone() }
    }

    pub(crate) fn archs(&self) -> Vec<Arch> {
        if self.archs.is_empty() { Arch::ALL.to_vec() } else { self.archs.clone() }
    }

    /// The address of the queue, or the file that holds it: a flag beats a variable.
    pub(crate) fn from_matches(matches: &ArgMatches) -> Result<Options, clap::Error> {
        let mut options = Options::from_arg_matches(matches)?;
        let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
        if options.queue.is_some() && options.queue_file.is_some() {
            match (given("queue"), given("queue_file")) {
                (true, false) => options.queue_file = None,
                (false, true) => options.queue = None,
                (true, true) | (false, false) => {
                    let text = "give --queue or --queue-file, not both";
                    return Err(Options::command().error(ErrorKind::ArgumentConflict, text));
                }
            }
        }
        Ok(options)
    }

    /// See `--build-key-file`.
    pub(crate) fn build_key_file(&self) -> PathBuf {
        let default = || queue::state_directory(&|name| std::env::var(name).ok()).unwrap_or_default().join("build-key");
        self.build_key_file.clone().unwrap_or_else(default)
    }

    /// How much louder than usual the log is.
    pub(crate) fn loudness(&self) -> i8 {
        let steps = i16::from(self.verbose) - i16::from(self.quiet);
        i8::try_from(steps.clamp(-5, 5)).unwrap_or_default()
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }
}

/// See `--log-format`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogFormat> for Format {
    fn from(format: LogFormat) -> Format {
        match format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        }
    }
}

/// How many jobs of each kind run at once, where somebody says so; see [`Concurrency::of`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Concurrency(BTreeMap<Kind, u16>);

impl Concurrency {
    /// As said, else the default of the kind.
    pub(crate) fn of(&self, kind: Kind) -> u16 {
        self.0.get(&kind).copied().unwrap_or(match kind {
            Kind::Upload | Kind::Prune => 8,
            Kind::Snapshot => 32,
            Kind::Build => 200,
            Kind::BaseImage => 2,
        })
    }
}

/// The default, as one would write it.
impl Display for Concurrency {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let words = Kind::ALL.map(|kind| format!("{kind}={}", self.of(kind)));
        f.write_str(&words.join(","))
    }
}

impl FromStr for Concurrency {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |word: &str| {
            let (kind, count) = word.split_once('=').ok_or_else(|| format!("{word:?} is not KIND=N"))?;
            let count = count
                .parse()
                .ok()
                .filter(|count| (1..=1000).contains(count))
                .ok_or_else(|| format!("{count:?} is not 1 to 1000"))?;
            Ok((kind.parse::<Kind>().map_err(|error| error.to_string())?, count))
        };
        text.split(',').filter(|word| !word.is_empty()).map(pair).collect::<Result<_, String>>().map(Concurrency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn concurrency_names_what_is_wrong() {
        assert_eq!(
            "upload=3".parse::<Concurrency>().unwrap().to_string(),
            "upload=3,prune=8,snapshot=32,build=200,base-image=2"
        );
        assert!("upload".parse::<Concurrency>().unwrap_err().contains("KIND=N"));
        assert!("paint=3".parse::<Concurrency>().unwrap_err().contains("paint"));
        assert!("upload=0".parse::<Concurrency>().unwrap_err().contains("1 to 1000"));
    }
}
