//! Further processes: this very test program, started again to run the test `be_a_child`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use imagewright_common::arch::Arch;
use imagewright_common::job::{Kind, Lane};
use imagewright_common::queue::{self, Address, Backend, Consumer, Delivery, Patience, QueueError, Tap, Verdict};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::mpsc;

pub(crate) const LANE: Lane = Lane { kind: Kind::Upload, arch: Some(Arch::Amd64) };

const SOON: Duration = Duration::from_secs(30);

/// Precedes what a child says, among what the test harness prints.
const MARK: &str = "child: ";

/// The user and group that own nothing.
const NOBODY: u32 = 65534;

pub(crate) fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("state/queue.db")
}

pub(crate) async fn try_open(directory: &TempDir) -> Result<Backend, QueueError> {
    queue::open(&Address::Sqlite(file(directory)), "case", "test", Patience::Endless).await
}

pub(crate) async fn open(directory: &TempDir) -> Backend {
    try_open(directory).await.unwrap()
}

pub(crate) async fn open_as(directory: &TempDir, namespace: &str) -> Backend {
    queue::open(&Address::Sqlite(file(directory)), namespace, "test", Patience::Endless).await.unwrap()
}

pub(crate) async fn publish(backend: &Backend, payload: &str) {
    backend.queue.publish(LANE, "id", payload.as_bytes()).await.unwrap();
}

pub(crate) async fn take(consumer: &mut Box<dyn Consumer>) -> Delivery {
    tokio::time::timeout(SOON, consumer.next()).await.unwrap().unwrap()
}

/// Everything into the file itself, and nobody has it open. The side files go with the last connection, unless two go at
/// the same moment; those of a damaged file are not tidied up at all.
pub(crate) async fn wait_until_closed(directory: &TempDir) {
    let began = Instant::now();
    let side = ["queue.db-wal", "queue.db-shm"].map(|name| file(directory).with_file_name(name));
    while side.iter().any(|path| path.exists()) {
        let _ = rusqlite::Connection::open(file(directory)).and_then(|last| last.execute_batch("PRAGMA user_version"));
        if began.elapsed() > Duration::from_secs(2) {
            side.iter().for_each(|path| drop(std::fs::remove_file(path)));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One more process that uses the file. Killed when it is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Child {
    pub(crate) fn start(directory: &TempDir, task: &str) -> Child {
        Child::run(Command::new(std::env::current_exe().unwrap()), directory, task)
    }

    /// As a user who owns nothing; root may write whatever the modes say.
    pub(crate) fn start_without_rights(directory: &TempDir, task: &str) -> Child {
        if !rustix::process::geteuid().is_root() {
            return Child::start(directory, task);
        }
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let program = directory.path().join("program");
        if !program.exists() {
            std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        }
        let mut command = Command::new(&program);
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        Child::run(command, directory, task)
    }

    fn run(mut command: Command, directory: &TempDir, task: &str) -> Child {
        command.args(["--exact", "be_a_child", "--ignored", "--nocapture"]);
        command.env("CHILD_TASK", task).env("CHILD_FILE", file(directory));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (say, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, said)) = line.split_once(MARK) {
                    let _ = say.send(said.to_owned());
                }
            }
        });
        Child { process, lines }
    }

    /// The next thing it says.
    pub(crate) async fn says(&mut self) -> String {
        tokio::time::timeout(SOON, self.lines.recv()).await.unwrap().unwrap()
    }

    /// Tell it something.
    pub(crate) async fn hear(&mut self, word: &str) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The other side of [`Child`].
pub(crate) async fn be_a_child() {
    let (Ok(task), Ok(path)) = (std::env::var("CHILD_TASK"), std::env::var("CHILD_FILE")) else { return };
    let opened = queue::open(&Address::Sqlite(Path::new(&path).to_owned()), "case", "child", Patience::Endless).await;
    let backend = match opened {
        Ok(backend) => backend,
        Err(error) => return say(&error.to_string()),
    };
    let mut consumer = match backend.queue.consume(Tap::New(LANE), 1).await {
        Ok(consumer) => consumer,
        Err(error) => return say(&error.to_string()),
    };
    loop {
        let delivery = consumer.next().await.unwrap();
        let payload = String::from_utf8_lossy(&delivery.payload).into_owned();
        if task == "hold" {
            say(&format!("holds {payload}, lost {} times", delivery.counts.crashes));
            std::io::stdin().read_line(&mut String::new()).unwrap();
            say(&format!("{:?}", delivery.settle(Verdict::Done).await));
        } else {
            delivery.settle(Verdict::Done).await.unwrap();
            say(&payload);
            if payload == "end" {
                return;
            }
        }
    }
}

#[expect(clippy::print_stdout, reason = "this is how the parent hears of it")]
fn say(what: &str) {
    println!("{MARK}{what}");
}
