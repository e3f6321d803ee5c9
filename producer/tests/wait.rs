//! `--wait`, with this test as the worker at the other end of the queue.

#![expect(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use imagewright_common::arch::Arch;
use imagewright_common::event::{Event, What};
use imagewright_common::job::{Kind, Lane, Message, PruneSpec, Spec, UploadSpec};
use imagewright_common::queue::{self, Address, Backend, Patience, Tap, Verdict};
use imagewright_common::wire;
use jiff::Timestamp;
use serde_json::{Value, json};

const BY: &str = "test/1";
const DEADLINE: Duration = Duration::from_secs(30);

struct Worker {
    backend: Backend,
    producer: Child,
}

fn queue_file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder.join("queue.db")
}

impl Worker {
    async fn start(name: &str, more: &str) -> Worker {
        let file = queue_file(name);
        let address = Address::Sqlite(file.clone());
        let backend = queue::open(&address, "imagewright", "test", Patience::For(DEADLINE)).await.unwrap();
        let line = format!(
            "upload --wait --name noble --arch amd64 --cloud edge-1 --file /f --queue sqlite:{}",
            file.display()
        );
        let producer = Command::new(env!("CARGO_BIN_EXE_imagewright"))
            .args(line.split(' ').chain(more.split_whitespace()))
            .env_clear()
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Worker { backend, producer }
    }

    /// Take the one job there is.
    async fn take(&self) -> Message {
        let lane = Lane { kind: Kind::Upload, arch: Some(Arch::Amd64) };
        let mut consumer = self.backend.queue.consume(Tap::New(lane), 1).await.unwrap();
        let delivery = tokio::time::timeout(DEADLINE, consumer.next()).await.unwrap().unwrap();
        let message = wire::decode(&delivery.payload, Timestamp::now()).unwrap();
        delivery.settle(Verdict::Done).await.unwrap();
        message
    }

    async fn say(&self, message: &Message, what: What) {
        self.backend.log.append(&Event::of(message, BY, what)).await.unwrap();
    }

    fn end(self) -> Output {
        self.producer.wait_with_output().unwrap()
    }
}

fn child(message: &Message) -> Message {
    let Spec::Upload(UploadSpec { name, cloud, keep, .. }) = message.spec.clone() else { panic!("{message:?}") };
    let id = message.child_id(Kind::Prune, &cloud);
    let spec = Spec::Prune(PruneSpec { name, cloud, keep, arch: None });
    Message { id, parent: Some(message.id), spec, ..message.clone() }
}

fn failed(error: &str) -> What {
    What::Failed { error: error.to_owned(), field: None, attempt: 1, step: None, request_id: Some("req-7".to_owned()) }
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn it_ends_with_the_whole_tree_and_a_failed_prune_is_a_warning() {
    let worker = Worker::start("wait-tree", "--json").await;
    let upload = worker.take().await;
    let prune = child(&upload);
    worker.say(&upload, What::Started { attempt: 0, alone: false }).await;
    let progress = What::Progress { bytes: 1 << 20, total: 1 << 30, rate: 1 << 20 };
    worker.backend.log.announce(&Event::of(&upload, BY, progress)).await;
    worker.say(&upload, What::Succeeded { result: json!({ "image_id": "i-1", "children": [prune.id] }) }).await;
    worker.say(&prune, What::Started { attempt: 0, alone: false }).await;
    worker.say(&prune, failed("a listing broke off")).await;
    let output = worker.end();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output.stderr));
    let jobs: Value = serde_json::from_slice(&output.stdout).unwrap();
    let [first, second] = jobs["jobs"].as_array().unwrap().as_slice() else { panic!("{jobs}") };
    assert_eq!((&first["state"], &first["result"]["image_id"]), (&"succeeded".into(), &"i-1".into()));
    assert_eq!((&second["state"], &second["parent"]), (&"failed".into(), &first["id"]));
    let shown = said(&output.stderr);
    assert!(shown.contains("running") && shown.contains("succeeded, image i-1"), "{shown}");
    assert!(shown.contains("warning: prune noble on edge-1"), "{shown}");
}

#[tokio::test]
async fn a_failed_job_is_1_and_says_why() {
    let worker = Worker::start("wait-failed", "").await;
    let upload = worker.take().await;
    worker.say(&upload, failed("no such file")).await;
    let output = worker.end();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output.stdout), format!("{}\n", upload.id));
    let last = said(&output.stderr).lines().last().unwrap().to_owned();
    assert!(
        last.starts_with("error: upload noble amd64 on edge-1") && last.contains("no such file (request req-7)"),
        "{last}"
    );
}

#[tokio::test]
async fn control_c_leaves_the_jobs_alone_and_says_how_to_look() {
    let mut worker = Worker::start("wait-interrupted", "").await;
    let upload = worker.take().await;
    worker.say(&upload, What::Started { attempt: 0, alone: false }).await;
    let mut lines = BufReader::new(worker.producer.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.ends_with(": running")));
    let pid = worker.producer.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let last = lines.last().unwrap();
    let output = worker.end();
    assert_eq!(output.status.code(), Some(130));
    assert!(last.ends_with(&format!("imagewright status {}", upload.id)), "{last}");
}
