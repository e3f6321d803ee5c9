//! Messages of strangers: whatever the bytes, a job or a refusal that names the field. `PROPTEST_CASES` sets how many.

#![expect(clippy::unwrap_used, reason = "a helper that cannot do its part fails the test")]

use imagewright_common::{status, wire};
use jiff::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value};

const GOLDEN: [&[u8]; 4] = [
    include_bytes!("golden/upload-v1.json"),
    include_bytes!("golden/upload-url-v1.json"),
    include_bytes!("golden/upload-image-v1.json"),
    include_bytes!("golden/prune-v1.json"),
];

/// Longest refusal in characters: it must fit a header beside others.
const REFUSAL_MAX: usize = 1000;

fn config() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig { cases: asked.cases.max(2_000), failure_persistence: None, ..asked }
}

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// What people put where something else belongs, and anything else.
fn any_value() -> impl Strategy<Value = Value> {
    let words =
        ["", "amd64", "upload", "../../etc/passwd", "https://u:p@h/", "0", "null", "\u{0}", "é".repeat(300).leak()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        proptest::sample::select(words.to_vec()).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-z_]{1,10}", inner, 0..4).prop_map(|map| Value::Object(Map::from_iter(map))),
        ]
    })
}

/// Every place in a document, by its pointer.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    if let Value::Object(fields) = value {
        for (name, inner) in fields {
            places(inner, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
        }
    }
}

/// Either a job that means the same when it is written again, or a refusal fit for whoever reads it.
fn judged(payload: &[u8]) -> Result<(), TestCaseError> {
    drop(wire::glimpse(payload));
    prop_assert!(!status::message_id(payload).is_empty());
    match wire::decode(payload, now()) {
        Ok(message) => {
            let again = wire::encode(&message).unwrap();
            prop_assert_eq!(wire::decode(&again, now()).unwrap(), message);
        }
        Err(error) => {
            prop_assert!(!error.field.is_empty() && !error.reason.is_empty(), "{error:?}");
            prop_assert!(error.to_string().chars().count() <= REFUSAL_MAX, "{error}");
            // An address may carry a password, and stands in the source.
            let is_address = ["spec.source", "spec.source.url"].contains(&error.field.as_str());
            let is_secret = is_address && error.to_string().contains("u:p@");
            prop_assert!(!is_secret, "{error}");
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_a_job_or_a_refusal(bytes in vec(any::<u8>(), 0..600)) {
        judged(&bytes)?;
    }

    #[test]
    fn any_document_is_a_job_or_a_refusal(document in any_value()) {
        judged(&serde_json::to_vec(&document).unwrap())?;
    }

    #[test]
    fn a_message_with_anything_anywhere_is_a_job_or_a_refusal(
        golden in proptest::sample::select(GOLDEN.to_vec()),
        changes in vec((any::<Index>(), any::<bool>(), "[a-z_]{1,12}", any_value()), 1..4),
    ) {
        let mut message: Value = serde_json::from_slice(golden).unwrap();
        for (index, adds, name, value) in changes {
            let mut found = Vec::new();
            places(&message, "", &mut found);
            let place = &found[index.index(found.len())];
            let place = message.pointer_mut(place).unwrap();
            match place.as_object_mut().filter(|_| adds) {
                Some(fields) => drop(fields.insert(name, value)),
                None => *place = value,
            }
        }
        judged(&serde_json::to_vec(&message).unwrap())?;
    }

    #[test]
    fn a_message_cut_or_spoilt_is_a_job_or_a_refusal(
        golden in proptest::sample::select(GOLDEN.to_vec()),
        cut in any::<Index>(),
        spoilt in vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        let mut bytes = golden.to_vec();
        for (at, byte) in spoilt {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(golden.len()) + 1);
        judged(&bytes)?;
    }
}
