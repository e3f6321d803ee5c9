//! The program as a script sees it: what it prints where, and its exit codes. The queue is a file.

#![expect(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A folder of its own for each test, with a queue in it.
struct Place {
    folder: PathBuf,
}

const UPLOAD: &str = "upload --name noble --arch x86_64 --file /srv/noble.img";

impl Place {
    fn new(name: &str) -> Place {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        Place { folder }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagewright"));
        command.args(line.split_whitespace()).env_clear().env("HOME", &self.folder).current_dir(&self.folder);
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    fn json(&self, line: &str) -> Value {
        let output = self.run(line);
        assert_eq!(code(&output), 0, "{line}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn queue(&self) -> PathBuf {
        self.folder.join(".local/state/imagewright/queue.db")
    }
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn help_is_a_result_and_wrong_usage_is_64() {
    let place = Place::new("help");
    for line in ["--help", "upload --help", "dead list --help", "--version"] {
        let output = place.run(line);
        assert_eq!(code(&output), 0, "{line}");
        assert!(stdout(&output).contains("imagewright") && stderr(&output).is_empty(), "{line}");
    }
    for line in
        ["", "uplaod", "prune --name n --cloud c --keep 0", "upload --cloud c", "schema worker", "queues --format xml"]
    {
        let output = place.run(line);
        assert_eq!(code(&output), 64, "{line}");
        assert!(stdout(&output).is_empty() && !stderr(&output).is_empty(), "{line}");
    }
}

#[test]
fn what_a_worker_would_bury_is_refused_with_the_field_and_touches_no_queue() {
    let place = Place::new("refused");
    for (line, field) in [
        ("upload --name n --arch amd64 --cloud c --file noble.img", "spec.source.file"),
        ("upload --name n --arch amd64 --cloud c", "spec.source"),
        ("upload --name n --arch amd64 --cloud c --file /f --property os_hash_algo=x", "spec.properties.os_hash_algo"),
        ("upload --name n --arch amd64 --cloud c --from build:a/b", "spec.source"),
        ("upload --name in:n --arch amd64 --cloud c --file /f", "--name"),
        ("upload --name n --arch sparc --cloud c --file /f", "--arch"),
        ("upload --name n --arch amd64 --cloud c --file /f --keep 100", "--keep"),
        ("upload --name n --arch amd64 --file /f", "--cloud"),
        ("upload --name n --arch amd64 --cloud c --file /f --deadline soon", "--deadline"),
    ] {
        let output = place.run(line);
        assert_eq!(code(&output), 64, "{line}");
        assert!(stderr(&output).contains(field), "{line}: {}", stderr(&output));
        assert!(!place.queue().exists(), "{line}");
    }
}

#[test]
fn enqueued_jobs_are_named_one_a_line_and_found_again() {
    let place = Place::new("enqueued");
    let output = place.run(&format!("{UPLOAD} --cloud edge-1,edge-2,edge-1"));
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let ids: Vec<String> = stdout(&output).lines().map(str::to_owned).collect();
    assert_eq!(ids.len(), 2, "a cloud named twice is one cloud");
    let status = place.json(&format!("status {} {} --json", ids[1].to_uppercase(), ids[0]));
    assert_eq!([&status[0]["id"], &status[1]["id"]], [ids[1].as_str(), ids[0].as_str()]);
    assert_eq!(status[0]["state"], "queued");
    assert_eq!((&status[0]["arch"], &status[0]["cloud"]), (&"amd64".into(), &"edge-2".into()));
    assert_eq!(status.as_array().unwrap().len(), 2);
    let jobs = place.json("-f json prune --name noble --cloud edge-3 --keep 2 --deadline 90m");
    assert_eq!((&jobs["jobs"][0]["kind"], &jobs["jobs"][0]["cloud"]), (&"prune".into(), &"edge-3".into()));
    assert_eq!(place.json("status --json").as_array().unwrap().len(), 3);
    let table = stdout(&place.run("status --tree"));
    assert!(table.starts_with("JOB") && table.contains(&ids[0]) && table.lines().count() == 4, "{table}");
}

#[test]
fn an_id_the_log_does_not_know_is_66_and_still_printed() {
    let place = Place::new("unknown");
    let known = stdout(&place.run(&format!("{UPLOAD} --cloud c")));
    let output = place.run(&format!("status 0199a0c2-7c1e-7aaa-8bbb-3f2f6a1d9c55 {known} --json"));
    assert_eq!(code(&output), 66);
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&status[0]["state"], &status[1]["state"]), (&"unknown".into(), &"queued".into()));
    assert!(stderr(&output).contains("0199a0c2") && stderr(&output).lines().count() == 1);
}

#[test]
fn empty_lists_are_lists() {
    let place = Place::new("empty");
    assert_eq!(place.json("dead list --json"), Value::Array(Vec::new()));
    assert_eq!(place.json("status --json"), Value::Array(Vec::new()));
    let queues = place.json("queues --json");
    let upload = queues.as_array().unwrap().iter().find(|queue| queue["queue"] == "imagewright.upload.amd64").unwrap();
    assert_eq!((&upload["ready"], &upload["consumers"]), (&0.into(), &0.into()));
}

#[test]
fn a_flag_beats_the_environment_and_the_environment_beats_the_file() {
    let place = Place::new("precedence");
    let config = place.write("imagewright.toml", "namespace = 'file'\n[upload]\nkeep = 3\n");
    let first = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let queues: Value = serde_json::from_slice(&output.stdout).unwrap();
        queues[0]["queue"].as_str().unwrap().split('.').next().unwrap().to_owned()
    };
    assert_eq!(first(&mut place.command("queues --json")), "imagewright");
    assert_eq!(first(place.command("queues").env("IMAGEWRIGHT_JSON", "1").env("IMAGEWRIGHT_CONFIG", &config)), "file");
    let mut command = place.command(&format!("queues --json --config {config}"));
    assert_eq!(first(command.env("IMAGEWRIGHT_NAMESPACE", "variable")), "variable");
    let mut command = place.command(&format!("queues --namespace flag --json --config {config}"));
    assert_eq!(first(command.env("IMAGEWRIGHT_NAMESPACE", "variable")), "flag");
    let mut command = place.command(&format!("--namespace flag queues --json --config {config}"));
    assert_eq!(first(command.env("IMAGEWRIGHT_NAMESPACE", "variable")), "flag");
    let output = place.command(&format!("{UPLOAD} --json")).env("OS_CLOUD", "from-os").output().unwrap();
    let jobs: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(jobs["jobs"][0]["cloud"], "from-os");
    let output = place
        .command(&format!("{UPLOAD} --json"))
        .env("OS_CLOUD", "x")
        .env("IMAGEWRIGHT_CLOUD", "a,b")
        .output()
        .unwrap();
    let jobs: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(jobs["jobs"].as_array().unwrap().len(), 2, "{jobs}");
}

#[test]
fn a_queue_that_is_away_is_said_in_time_and_without_its_password() {
    let place = Place::new("away");
    let file = place.write("queue", "amqp://user:s3cret@127.0.0.1:1/images\n");
    let begun = Instant::now();
    let output = place.run(&format!("queues --queue-file {file}"));
    assert!(begun.elapsed() < Duration::from_secs(13));
    assert_eq!(code(&output), 69, "{}", stderr(&output));
    let error = stderr(&output);
    assert!(error.contains("127.0.0.1:1") && !error.contains("s3cret"), "{error}");
    assert_eq!(error.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{error}");
    let output = place.run("queues --queue amqp://user:s3cret@h:port/");
    assert_eq!(code(&output), 64);
    assert!(!stderr(&output).contains("s3cret"), "{}", stderr(&output));
}

#[test]
fn a_cloud_that_nobody_configured_is_64() {
    let place = Place::new("clouds");
    for line in ["latest-build-id noble --cloud nowhere", "images --cloud nowhere", "latest-build-id noble", "images"] {
        let output = place.run(line);
        assert_eq!(code(&output), 64, "{line}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: "), "{line}: {}", stderr(&output));
    }
}
