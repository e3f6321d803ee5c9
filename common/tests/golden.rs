//! The golden messages: what was once published is read for ever, and means the same.

#![expect(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use imagewright_common::arch::Arch;
use imagewright_common::job::{Kind, Message};
use imagewright_common::wire;
use jiff::Timestamp;
use serde_json::Value;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn decode(payload: &[u8]) -> Message {
    wire::decode(payload, Timestamp::MAX).unwrap()
}

#[test]
fn every_golden_message_decodes_and_means_the_same_when_written_again() {
    for path in files() {
        let golden = std::fs::read(&path).unwrap();
        let message = decode(&golden);
        let again = wire::encode(&message).unwrap();
        assert_eq!(decode(&again), message, "{}", path.display());
        let (golden, again): (Value, Value) =
            (serde_json::from_slice(&golden).unwrap(), serde_json::from_slice(&again).unwrap());
        kept(&golden, &again, &path.display().to_string());
        if let Some(arch) = again.pointer("/spec/arch") {
            assert!(Arch::ALL.map(Arch::as_str).contains(&arch.as_str().unwrap()), "{arch}");
        }
    }
}

/// Everything in `golden` is in `again`; only aliases of architectures and the case of digits may differ.
fn kept(golden: &Value, again: &Value, place: &str) {
    match golden {
        Value::Object(fields) => {
            for (name, value) in fields {
                kept(value, again.get(name).unwrap_or(&Value::Null), &format!("{place} {name}"));
            }
        }
        Value::String(word) if place.ends_with(" arch") => {
            assert_eq!(again.as_str(), Some(word.parse::<Arch>().unwrap().as_str()), "{place}");
        }
        Value::String(word) if place.ends_with(" sha256") => {
            assert_eq!(again.as_str(), Some(word.to_ascii_lowercase().as_str()), "{place}");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            assert_eq!(golden, again, "{place}");
        }
    }
}

#[test]
fn every_kind_of_job_has_a_golden_message() {
    let kinds: BTreeSet<Kind> = files().iter().map(|path| decode(&std::fs::read(path).unwrap()).spec.kind()).collect();
    assert_eq!(kinds, BTreeSet::from(Kind::ALL));
}
