//! Bytes to jobs and back. Strict: what a message holds beyond its version is refused, and the refusal names the field.

use std::collections::HashSet;

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;
use uuid::Uuid;

use crate::job::{CloudName, Kind, Message, Spec, VERSION, id_time};

/// The largest message read, in bytes.
pub const SIZE_MAX: usize = 256 * 1024;

/// The longest name of a field, and the longest reason, that a refusal repeats, in characters.
const FIELD_MAX: usize = 200;
const REASON_MAX: usize = 500;

/// How far ahead of the reader's clock `asked_at` may be.
const AHEAD_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Image attributes that a message may not set through `properties`: those of the Image API v2's own schema.
pub(crate) const CORE_ATTRIBUTES: [&str; 26] = [
    "id",
    "name",
    "status",
    "visibility",
    "protected",
    "checksum",
    "size",
    "virtual_size",
    "disk_format",
    "container_format",
    "created_at",
    "updated_at",
    "tags",
    "direct_url",
    "locations",
    "self",
    "file",
    "schema",
    "min_disk",
    "min_ram",
    "architecture",
    "stores",
    "os_hidden",
    "deleted",
    "deleted_at",
    "is_public",
];

/// What names of properties may not begin with: they are ours, or Glance's.
pub(crate) const OUR_PREFIXES: [&str; 3] = ["imagewright_", "owner", "os_hash_"];

/// Why bytes are no job that this version can do. Never worth a retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct DecodeError {
    /// The field at fault, as in `spec.keep`; `message` for the whole.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl DecodeError {
    /// Both are cut: a message may hold any text, and what is said of it must fit a header.
    fn new(field: &str, reason: impl AsRef<str>) -> Self {
        let cut = |text: &str, most: usize| text.chars().filter(|c| !c.is_control()).take(most).collect::<String>();
        DecodeError { field: cut(field, FIELD_MAX), reason: cut(reason.as_ref(), REASON_MAX) }
    }
}

/// The bytes of a message.
///
/// # Errors
/// Only if the message cannot be JSON, which none of our types can bring about.
pub fn encode(message: &Message) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(message)
}

/// The job in a message, or the first thing that is wrong with it. `now` judges `asked_at`.
///
/// # Errors
/// [`DecodeError`], naming the field and the fix.
pub fn decode(payload: &[u8], now: Timestamp) -> Result<Message, DecodeError> {
    if payload.len() > SIZE_MAX {
        return Err(DecodeError::new("message", format!("larger than {SIZE_MAX} bytes")));
    }
    let value: Value =
        serde_json::from_slice(payload).map_err(|error| DecodeError::new("message", format!("not JSON: {error}")))?;
    let Value::Object(mut envelope) = value else {
        return Err(DecodeError::new("message", "not a JSON object"));
    };
    version(envelope.get("version"))?;
    let spec = envelope.remove("spec").ok_or_else(|| DecodeError::new("spec", "missing"))?;
    let spec = decode_spec(spec)?;
    envelope.insert("spec".to_owned(), placeholder());
    let mut message: Message = typed(Value::Object(envelope), "")?;
    message.spec = spec;
    check(&message, now)?;
    Ok(message)
}

/// What can be told of a message that may not decode: its id, and what it says it is. For reports only.
pub fn glimpse(payload: &[u8]) -> Glimpse {
    let value: Value = serde_json::from_slice(payload).unwrap_or(Value::Null);
    let word = |key: &str| value.pointer(key).and_then(Value::as_str).map(|word| word.chars().take(255).collect());
    Glimpse {
        id: value.get("id").and_then(Value::as_str).and_then(|id| Uuid::parse_str(id).ok()),
        parent: value.get("parent").and_then(Value::as_str).and_then(|id| Uuid::parse_str(id).ok()),
        kind: word("/spec/kind"),
        name: word("/spec/name"),
        arch: word("/spec/arch"),
        cloud: word("/spec/cloud"),
        run: value
            .pointer("/progress/run")
            .and_then(Value::as_u64)
            .and_then(|run| u32::try_from(run).ok())
            .unwrap_or(0),
    }
}

/// See [`glimpse`].
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the fields are those of the message")]
pub struct Glimpse {
    pub id: Option<Uuid>,
    pub parent: Option<Uuid>,
    pub kind: Option<String>,
    pub name: Option<String>,
    pub arch: Option<String>,
    pub cloud: Option<String>,
    pub run: u32,
}

fn version(found: Option<&Value>) -> Result<(), DecodeError> {
    match found.and_then(Value::as_u64) {
        Some(number) if number == u64::from(VERSION) => Ok(()),
        Some(number) => {
            Err(DecodeError::new("version", format!("{number} is unknown here: this program reads version {VERSION}")))
        }
        None => Err(DecodeError::new("version", format!("missing or no number: write {VERSION}"))),
    }
}

fn decode_spec(spec: Value) -> Result<Spec, DecodeError> {
    let Value::Object(mut fields) = spec else {
        return Err(DecodeError::new("spec", "not a JSON object"));
    };
    let kind = match fields.remove("kind") {
        Some(Value::String(word)) => {
            word.parse::<Kind>().map_err(|error| DecodeError::new("spec.kind", error.to_string()))?
        }
        Some(_) => return Err(DecodeError::new("spec.kind", "not a string")),
        None => return Err(DecodeError::new("spec.kind", "missing")),
    };
    Ok(match kind {
        // Said here, for the text of a type error would quote what may be an address with a password.
        Kind::Upload if fields.get("source").is_some_and(|source| !source.is_object()) => {
            let reason = "not an object: write {\"file\": ...}, {\"url\": ...} or {\"image\": ...}";
            return Err(DecodeError::new("spec.source", reason));
        }
        Kind::Upload => Spec::Upload(typed(Value::Object(fields), "spec")?),
        Kind::Prune => Spec::Prune(typed(Value::Object(fields), "spec")?),
        Kind::Snapshot => Spec::Snapshot(typed(Value::Object(fields), "spec")?),
        Kind::Build => Spec::Build(typed(Value::Object(fields), "spec")?),
        Kind::BaseImage => Spec::BaseImage(typed(Value::Object(fields), "spec")?),
    })
}

/// A spec that stands in while the envelope around it is read.
fn placeholder() -> Value {
    serde_json::json!({ "kind": "prune", "name": "-", "cloud": "-", "keep": 1 })
}

fn typed<T: DeserializeOwned>(value: Value, prefix: &str) -> Result<T, DecodeError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let reason = error.inner().to_string();
        let within = field(&path, &reason);
        let parts: Vec<&str> = [prefix, within.as_str()].into_iter().filter(|part| !part.is_empty()).collect();
        let field = if parts.is_empty() { "message".to_owned() } else { parts.join(".") };
        DecodeError::new(&field, &reason)
    })
}

/// The field at fault, by where serde stopped and what it says; empty for the whole.
pub(crate) fn field(path: &str, reason: &str) -> String {
    let path = if path == "." { "" } else { path };
    match quoted_field(reason).filter(|field| path.rsplit('.').next() != Some(field)) {
        Some(field) if path.is_empty() => field.to_owned(),
        Some(field) => format!("{path}.{field}"),
        None => path.to_owned(),
    }
}

/// serde reports an unknown or missing field at its parent and quotes it in the text.
fn quoted_field(reason: &str) -> Option<&str> {
    let rest = reason.strip_prefix("unknown field `").or_else(|| reason.strip_prefix("missing field `"))?;
    rest.split('`').next()
}

fn check(message: &Message, now: Timestamp) -> Result<(), DecodeError> {
    let (field, at) = match message.asked_at {
        Some(at) => ("asked_at", Some(at)),
        None => ("id", id_time(message.id)),
    };
    if let Some(at) = at.filter(|at| at.duration_since(now) > AHEAD_MAX) {
        return Err(DecodeError::new(field, format!("{at} is more than five minutes in the future")));
    }
    match &message.spec {
        Spec::Upload(upload) => upload.properties.keys().try_for_each(|key| property(key)),
        Spec::Build(build) => each_once("spec.upload_to", &build.upload_to),
        Spec::Prune(_) | Spec::Snapshot(_) | Spec::BaseImage(_) => Ok(()),
    }
}

fn each_once(field: &str, clouds: &[CloudName]) -> Result<(), DecodeError> {
    let mut seen = HashSet::new();
    match clouds.iter().find(|cloud| !seen.insert(*cloud)) {
        Some(twice) => Err(DecodeError::new(field, format!("{twice} is named twice"))),
        None => Ok(()),
    }
}

fn property(key: &str) -> Result<(), DecodeError> {
    let ours = OUR_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    let field = format!("spec.properties.{key}");
    if ours || CORE_ATTRIBUTES.contains(&key) {
        return Err(DecodeError::new(&field, "may not be set by a message"));
    }
    if key.is_empty() || key.chars().count() > 255 || key.chars().any(char::is_control) {
        return Err(DecodeError::new("spec.properties", "a property name has 1 to 255 characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-23T10:00:00Z".parse().unwrap()
    }

    fn upload() -> Value {
        serde_json::from_slice(include_bytes!("../tests/golden/upload-v1.json")).unwrap()
    }

    fn refused(change: impl FnOnce(&mut Value)) -> DecodeError {
        let mut value = upload();
        change(&mut value);
        decode(&serde_json::to_vec(&value).unwrap(), now()).unwrap_err()
    }

    #[test]
    fn every_refusal_names_the_field() {
        type Change = fn(&mut Value);
        let table: [(&str, Change); 16] = [
            ("version", |v| v["version"] = 2.into()),
            ("version", |v| v["version"] = "1".into()),
            ("id", |v| v["id"] = "seven".into()),
            ("colour", |v| v["colour"] = 1.into()),
            ("asked_at", |v| v["asked_at"] = "2026-11-23T10:06:00Z".into()),
            ("spec.kind", |v| v["spec"]["kind"] = "paint".into()),
            ("spec.colour", |v| v["spec"]["colour"] = 1.into()),
            ("spec.arch", |v| v["spec"]["arch"] = "sparc".into()),
            ("spec.keep", |v| v["spec"]["keep"] = 0.into()),
            ("spec.keep", |v| v["spec"]["keep"] = 100.into()),
            ("spec.name", |v| v["spec"]["name"] = "".into()),
            ("spec.source", |v| v["spec"]["source"] = serde_json::json!({"file": "noble.img"})),
            ("spec.source", |v| v["spec"]["source"] = serde_json::json!({})),
            ("spec.source.image.id", |v| v["spec"]["source"] = serde_json::json!({"image": {"cloud": "a"}})),
            ("spec.properties.os_hash_value", |v| v["spec"]["properties"]["os_hash_value"] = "x".into()),
            ("spec.cloud", |v| drop(v["spec"].as_object_mut().unwrap().remove("cloud"))),
        ];
        for (field, change) in table {
            assert_eq!(refused(change).field, field);
        }
        assert_eq!(decode(b"{", now()).unwrap_err().field, "message");
        assert_eq!(decode(b"[]", now()).unwrap_err().field, "message");
    }

    #[test]
    fn the_time_in_an_id_is_bounded_like_that_which_is_said() {
        let of_year_9000 = |v: &mut Value| {
            v["id"] = "c9c40000-0000-7000-8000-000000000000".into();
            v.as_object_mut().unwrap().remove("asked_at");
        };
        assert_eq!(refused(of_year_9000).field, "id");
        let mut value = upload();
        value["id"] = "c9c40000-0000-7000-8000-000000000000".into();
        value["asked_at"] = "2026-11-23T09:00:00Z".into();
        assert!(decode(&serde_json::to_vec(&value).unwrap(), now()).is_ok(), "what is said goes before it");
    }

    #[test]
    fn what_a_refusal_repeats_is_short() {
        let long = "x".repeat(200_000);
        let unknown = refused(|v| v["spec"][long.as_str()] = 1.into());
        let property = refused(|v| v["spec"]["properties"][format!("imagewright_{long}")] = "x".into());
        for error in [unknown, property] {
            assert!(error.to_string().len() < 1000);
        }
    }

    #[test]
    fn a_refusal_does_not_quote_an_address() {
        let source = serde_json::json!({"url": "h/i?signature=s3cret", "sha256": "00"});
        let error = refused(|v| v["spec"]["source"] = source);
        assert_eq!(error.field, "spec.source.url");
        assert!(!error.reason.contains("s3cret"), "{error}");
    }

    #[test]
    fn fields_of_a_later_progress_are_kept() {
        let mut value = upload();
        value["progress"] = serde_json::json!({"run": 2, "later": {"a": 1}});
        let message = decode(&serde_json::to_vec(&value).unwrap(), now()).unwrap();
        assert_eq!(message.run(), 2);
        let again: Value = serde_json::from_slice(&encode(&message).unwrap()).unwrap();
        assert_eq!(again["progress"], value["progress"]);
    }
}
