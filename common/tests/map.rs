//! The documents cannot rot: the map of ARCHITECTURE.md lists every source file, and every promise names a test there is.

#![expect(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const PLACES: [&str; 5] = ["common", "producer", "worker", "tests", "docs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust and Python file beneath `folder`, by its path from the root.
fn sources(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "__pycache__" || name == "target" {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs") || name.ends_with(".py") {
            found.insert(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
        }
    }
}

/// What stands between the first backticks of each line that begins with `start`.
fn listed(text: &str, start: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| Some(line.strip_prefix(start)?.split_once('`')?.0.to_owned())).collect()
}

#[test]
fn the_map_lists_every_source_file_and_nothing_else() {
    let mut there = BTreeSet::new();
    PLACES.iter().for_each(|place| sources(&root().join(place), &mut there));
    let map = listed(&fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap(), "- `");
    let add: Vec<String> = there.difference(&map).map(|path| format!("add    - `{path}`: ...")).collect();
    let gone = map.iter().filter(|path| !root().join(path).exists());
    let remove: Vec<String> = gone.map(|path| format!("remove - `{path}`")).collect();
    assert!(add.is_empty() && remove.is_empty(), "in ARCHITECTURE.md:\n{}", [add, remove].concat().join("\n"));
}

#[test]
fn every_promise_names_tests_that_exist() {
    let promises = fs::read_to_string(root().join("docs/promises.md")).unwrap();
    let named: Vec<(&str, &str)> = promises.split('`').filter_map(|word| word.split_once("::")).collect();
    assert!(!named.is_empty());
    let missing = |(file, test): &&(&str, &str)| {
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        !text.contains(&format!("fn {test}(")) && !text.contains(&format!("def {test}("))
    };
    let missing: Vec<String> = named.iter().filter(missing).map(|(file, test)| format!("{file}::{test}")).collect();
    assert!(missing.is_empty(), "docs/promises.md names tests that do not exist:\n{}", missing.join("\n"));
}
