//! Where an option gets its value: flag, environment, file, in this order.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::{Table, Value};

use crate::cli::Cli;
use crate::exit::{Exit, Failure};

const PREFIX: &str = "IMAGEWRIGHT_";

/// What a command line came to.
pub(crate) enum Parsed {
    /// Do this.
    Run(Box<Settings>),
    /// Help or a usage error; it has been shown.
    Shown(Exit),
}

/// All that was said.
pub(crate) struct Settings {
    pub(crate) cli: Cli,
    pub(crate) queue: QueueSetting,
}

/// Where the address of the queue stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QueueSetting {
    Url(String),
    File(PathBuf),
    Default,
}

/// Read the command line, the environment and the file they name.
pub(crate) fn parse(args: &[OsString]) -> Result<Parsed, Failure> {
    let file = match config_file(args, std::env::var_os(format!("{PREFIX}CONFIG"))) {
        Some(path) => read(&path)?,
        None => Table::new(),
    };
    let matches = match command(&file)?.try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return Ok(shown(&error)),
    };
    match Cli::from_arg_matches(&matches) {
        Ok(cli) => {
            let queue = queue(&cli, &matches)?;
            Ok(Parsed::Run(Box::new(Settings { cli, queue })))
        }
        Err(error) => Ok(shown(&error)),
    }
}

/// Help was asked for and goes to stdout; anything else is wrong usage.
fn shown(error: &clap::Error) -> Parsed {
    let _ = error.print();
    Parsed::Shown(if error.use_stderr() { Exit::Usage } else { Exit::Ok })
}

/// The file is looked for before the command line is understood, because it says what may be left out there.
fn config_file(args: &[OsString], variable: Option<OsString>) -> Option<PathBuf> {
    let mut args = args.iter().skip(1).take_while(|arg| arg.as_os_str() != "--");
    let mut found = None;
    while let Some(arg) = args.next() {
        if arg == "--config" {
            found = args.next().cloned();
        } else if let Some(path) = arg.to_str().and_then(|arg| arg.strip_prefix("--config=")) {
            found = Some(path.into());
        }
    }
    found.or(variable).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The file may hold the queue's password, so no error quotes it.
fn read(path: &Path) -> Result<Table, Failure> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().and_then(|span| text.get(..span.start)).map_or(1, |before| before.lines().count().max(1));
        Failure::usage(format!("{shown} is not TOML, at line {line}: {}", error.message()))
    })
}

/// The command line as it can be said, with what the file says as defaults.
fn command(file: &Table) -> Result<Command, Failure> {
    let command = with_variables(Cli::command());
    unknown(&command, file, "")?;
    with_defaults(command, &Table::new(), file)
}

fn is_ours(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| !matches!(long, "help" | "version"))
}

/// Every option has its variable. Values of variables never show in a help text.
fn with_variables(command: Command) -> Command {
    let variable = |arg: Arg| {
        if !is_ours(&arg) {
            return arg;
        }
        let name = arg.get_long().unwrap_or_default().to_uppercase().replace('-', "_");
        let arg = arg.env(format!("{PREFIX}{name}")).hide_env_values(true);
        if matches!(arg.get_action(), ArgAction::SetTrue) { arg.value_parser(FalseyValueParser::new()) } else { arg }
    };
    command.mut_args(variable).mut_subcommands(with_variables)
}

/// A key at the top holds for every command that has the option; one in the command's table beats it.
fn with_defaults(command: Command, above: &Table, own: &Table) -> Result<Command, Failure> {
    let mut values = above.clone();
    values.extend(own.iter().filter(|(_, value)| !value.is_table()).map(|(key, value)| (dashed(key), value.clone())));
    let mut wrong = None;
    let command = command.mut_args(|arg| {
        let Some(value) = arg.get_long().filter(|_| is_ours(&arg)).and_then(|long| values.get(long)) else {
            return arg;
        };
        match texts(value) {
            Some(texts) => {
                let is_word = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
                let arg = arg.required(false).default_values(texts);
                if is_word { arg.hide_default_value(true) } else { arg }
            }
            None => {
                wrong = arg.get_long().map(str::to_owned);
                arg
            }
        }
    });
    if let Some(key) = wrong {
        return Err(Failure::usage(format!(
            "the configuration file gives {key} a value that is no text, number or list"
        )));
    }
    let mut outcome = Ok(());
    let command = command.mut_subcommands(|below| {
        let name = below.get_name();
        let own = own.get(name).or_else(|| own.get(&name.replace('-', "_"))).and_then(Value::as_table);
        with_defaults(below.clone(), &values, own.unwrap_or(&Table::new())).unwrap_or_else(|failure| {
            outcome = Err(failure);
            below
        })
    });
    outcome.map(|()| command)
}

fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Integer(number) => Some(vec![number.to_string()]),
        Value::Boolean(flag) => Some(vec![flag.to_string()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        Value::Float(_) | Value::Datetime(_) | Value::Table(_) => None,
    }
}

fn dashed(key: &str) -> String {
    key.replace('_', "-")
}

/// A key that no command has is a typing error.
fn unknown(command: &Command, table: &Table, path: &str) -> Result<(), Failure> {
    for (key, value) in table {
        let name = dashed(key);
        let known = match value {
            Value::Table(below) => match command.find_subcommand(&name) {
                Some(command) => {
                    unknown(command, below, &format!("{path}{name}."))?;
                    true
                }
                None => false,
            },
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => name != "config" && has_option(command, &name),
        };
        if !known {
            return Err(Failure::usage(format!("the configuration file has {path}{key}, which is no option")));
        }
    }
    Ok(())
}

fn has_option(command: &Command, long: &str) -> bool {
    command.get_arguments().any(|arg| is_ours(arg) && arg.get_long() == Some(long))
        || command.get_subcommands().any(|below| has_option(below, long))
}

/// The nearer of `--queue` and `--queue-file` counts; both equally near contradict each other.
fn queue(cli: &Cli, matches: &ArgMatches) -> Result<QueueSetting, Failure> {
    let rank = |id: &str| match matches.value_source(id) {
        Some(ValueSource::CommandLine) => 3,
        Some(ValueSource::EnvVariable) => 2,
        Some(_) => 1,
        None => 0,
    };
    let (url, file) = (rank("queue"), rank("queue_file"));
    match (&cli.global.queue, &cli.global.queue_file) {
        (Some(_), Some(_)) if url == file => {
            Err(Failure::usage("both --queue and --queue-file say where the queue is: give one of them"))
        }
        (Some(address), _) if url > file => Ok(QueueSetting::Url(address.clone())),
        (_, Some(path)) => Ok(QueueSetting::File(path.clone())),
        (_, None) => Ok(QueueSetting::Default),
    }
}

#[cfg(test)]
mod tests;
