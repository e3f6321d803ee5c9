//! Images as Glance describes them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// An image, as `GET /v2/images/{id}` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id; not always a UUID in old clouds.
    pub id: String,
    /// Its name; several images may share one.
    pub name: Option<String>,
    /// Where it is in its life.
    pub status: ImageStatus,
    /// The id of the project that owns it.
    pub owner: Option<String>,
    /// `private`, `shared`, `community` or `public`.
    pub visibility: String,
    /// Bytes; none until it is `active`.
    pub size: Option<u64>,
    /// `raw`, `qcow2`, ...
    pub disk_format: Option<String>,
    /// `bare`, ...
    pub container_format: Option<String>,
    /// MD5 of the data. It may be set although the upload failed.
    pub checksum: Option<String>,
    /// The algorithm of `os_hash_value`, by default `sha512`.
    pub os_hash_algo: Option<String>,
    /// The digest of the data, in hex.
    pub os_hash_value: Option<String>,
    /// Whether lists leave it out.
    pub os_hidden: bool,
    /// Whether it must not be deleted.
    pub protected: bool,
    /// Whole seconds by the cloud's clock.
    pub created_at: Timestamp,
    /// Whole seconds by the cloud's clock. A changed property moves it, even while `saving`.
    pub updated_at: Timestamp,
    /// The property `architecture`, which is free text.
    pub architecture: Option<String>,
    /// All other properties that are strings.
    pub properties: BTreeMap<String, String>,
}

/// The life of an image (Glance: "Image statuses").
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ImageStatus {
    /// Made, without data.
    Queued,
    /// Data are arriving, or the server that received them died.
    Saving,
    /// Complete.
    Active,
    /// Broken by a failed upload (old clouds).
    Killed,
    /// Deleted.
    Deleted,
    /// To be deleted later.
    PendingDelete,
    /// Complete, but closed by an operator.
    Deactivated,
    /// Data are being staged.
    Uploading,
    /// Being imported.
    Importing,
    /// One that we do not know.
    Other(String),
}

impl ImageStatus {
    /// Glance's word.
    pub fn as_str(&self) -> &str {
        match self {
            ImageStatus::Queued => "queued",
            ImageStatus::Saving => "saving",
            ImageStatus::Active => "active",
            ImageStatus::Killed => "killed",
            ImageStatus::Deleted => "deleted",
            ImageStatus::PendingDelete => "pending_delete",
            ImageStatus::Deactivated => "deactivated",
            ImageStatus::Uploading => "uploading",
            ImageStatus::Importing => "importing",
            ImageStatus::Other(word) => word,
        }
    }
}

impl From<&str> for ImageStatus {
    fn from(word: &str) -> ImageStatus {
        match word {
            "queued" => ImageStatus::Queued,
            "saving" => ImageStatus::Saving,
            "active" => ImageStatus::Active,
            "killed" => ImageStatus::Killed,
            "deleted" => ImageStatus::Deleted,
            "pending_delete" => ImageStatus::PendingDelete,
            "deactivated" => ImageStatus::Deactivated,
            "uploading" => ImageStatus::Uploading,
            "importing" => ImageStatus::Importing,
            other => ImageStatus::Other(other.to_owned()),
        }
    }
}

impl fmt::Display for ImageStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// Strings in Glance's description of an image that are about the description, not the image.
const NOT_PROPERTIES: [&str; 6] = ["self", "file", "schema", "first", "direct_url", "stores"];

impl Image {
    /// Reads Glance's description. The error says which attribute is missing.
    pub(super) fn parse(mut json: Map<String, Value>) -> Result<Image, String> {
        let required = |value: Option<String>, name: &str| value.ok_or(format!("an image has no {name}"));
        let time = |value: Option<String>, name: &str| {
            value.and_then(|text| text.parse().ok()).ok_or(format!("an image has no {name}"))
        };
        let image = Image {
            id: required(text(&mut json, "id"), "id")?,
            name: text(&mut json, "name"),
            status: ImageStatus::from(required(text(&mut json, "status"), "status")?.as_str()),
            owner: text(&mut json, "owner"),
            visibility: required(text(&mut json, "visibility"), "visibility")?,
            size: json.get("size").and_then(Value::as_u64),
            disk_format: text(&mut json, "disk_format"),
            container_format: text(&mut json, "container_format"),
            checksum: text(&mut json, "checksum"),
            os_hash_algo: text(&mut json, "os_hash_algo"),
            os_hash_value: text(&mut json, "os_hash_value"),
            os_hidden: flag(&json, "os_hidden"),
            protected: flag(&json, "protected"),
            created_at: time(text(&mut json, "created_at"), "created_at")?,
            updated_at: time(text(&mut json, "updated_at"), "updated_at")?,
            architecture: text(&mut json, "architecture"),
            properties: BTreeMap::new(),
        };
        let properties = json.into_iter().filter_map(|(name, value)| match value {
            Value::String(text) if !NOT_PROPERTIES.contains(&name.as_str()) => Some((name, text)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                None
            }
        });
        Ok(Image { properties: properties.collect(), ..image })
    }
}

fn text(json: &mut Map<String, Value>, name: &str) -> Option<String> {
    match json.remove(name)? {
        Value::String(text) => Some(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn flag(json: &Map<String, Value>, name: &str) -> bool {
    json.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// An image to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    /// The id we choose, which makes it safe to ask again.
    pub id: Uuid,
    /// The name.
    pub name: String,
    /// `raw`, `qcow2`, ...; Glance inspects the data and refuses (415) what is not this.
    pub disk_format: String,
    /// `bare`, ...
    pub container_format: String,
    /// `private`, `shared`, `community` or `public`.
    pub visibility: String,
    /// The property `architecture`.
    pub architecture: Option<String>,
    /// All other properties. They cannot replace the attributes above.
    pub properties: BTreeMap<String, String>,
}

impl NewImage {
    pub(super) fn to_json(&self) -> Value {
        let mut json = json!(self.properties);
        json["id"] = json!(self.id);
        json["name"] = json!(self.name);
        json["disk_format"] = json!(self.disk_format);
        json["container_format"] = json!(self.container_format);
        json["visibility"] = json!(self.visibility);
        if let Some(architecture) = &self.architecture {
            json["architecture"] = json!(architecture);
        }
        json
    }
}

/// Which images to list; everything given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageQuery {
    /// Exactly this name.
    pub name: Option<String>,
    /// The id of the owning project.
    pub owner: Option<String>,
    /// This status; Glance shows no deleted ones.
    pub status: Option<ImageStatus>,
    /// Properties and their exact values, such as `imagewright_job`.
    pub property: Vec<(String, String)>,
    /// The hidden images instead of the others, as Glance has it.
    pub hidden: bool,
}

impl ImageQuery {
    /// What the server can filter.
    pub(super) fn filters(&self) -> Vec<(&str, Cow<'_, str>)> {
        let mut filters = Vec::new();
        if let Some(name) = &self.name {
            // Glance takes what stands before a colon for an operator, and answers 400 to most.
            let plain = !name.contains(':');
            filters.push(("name", if plain { name.into() } else { format!("eq:{name}").into() }));
        }
        filters.extend(self.owner.as_deref().map(|owner| ("owner", owner.into())));
        filters.extend(self.status.as_ref().map(|status| ("status", status.as_str().into())));
        filters.extend(self.property.iter().map(|(name, value)| (name.as_str(), value.into())));
        if self.hidden {
            filters.push(("os_hidden", "true".into()));
        }
        filters
    }

    /// Whether an image is one of those asked for.
    pub(super) fn matches(&self, image: &Image) -> bool {
        let property = |name: &str| match name {
            "architecture" => image.architecture.as_deref(),
            _ => image.properties.get(name).map(String::as_str),
        };
        self.name.as_ref().is_none_or(|name| image.name.as_ref() == Some(name))
            && self.owner.as_ref().is_none_or(|owner| image.owner.as_ref() == Some(owner))
            && self.status.as_ref().is_none_or(|status| image.status == *status)
            && self.property.iter().all(|(name, value)| property(name) == Some(value))
            && self.hidden == image.os_hidden
    }
}
