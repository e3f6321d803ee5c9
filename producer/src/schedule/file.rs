//! The file of desired images: read strictly, checked as a worker would check the jobs, and its JSON Schema.

use std::collections::{BTreeMap, HashMap};

use imagewright_common::arch::Arch;
use imagewright_common::job::{
    self, CloudName, DiskFormat, ImageName, Keep, Message, Source, Spec, UploadSpec, VERSION, Visibility,
};
use imagewright_common::{wire, yaml};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Target, slot};
use crate::command::upload;
use crate::time;

/// The version of the file that this program reads.
const FILE_VERSION: u32 = 1;

/// Where the schema is published.
const ID: &str = "https://github.com/imagewright/imagewright/blob/main/docs/schema/schedule-v1.json";

/// Which images should be on which clouds, and how old they may become.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Desired {
    /// Version of this file; this is version 1.
    #[serde(default = "file_version")]
    #[schemars(extend("const" = 1))]
    version: u32,
    /// The desired images. Each name and architecture may stand once a cloud.
    images: Vec<Entry>,
}

/// One image: a name, one or several architectures, one or several clouds.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [
    { "required": ["arch", "source"], "not": { "required": ["sources"] } },
    { "required": ["sources"], "not": { "anyOf": [{ "required": ["arch"] }, { "required": ["source"] }] } },
]))]
struct Entry {
    /// What the image is called on the clouds.
    name: ImageName,
    /// What it runs on, where there is one architecture; goes with `source`.
    #[serde(default)]
    #[schemars(with = "Arch")]
    arch: Option<Arch>,
    /// Where its bytes come from, where there is one architecture; goes with `arch`.
    #[serde(default)]
    #[schemars(with = "Source")]
    source: Option<Source>,
    /// One source for each architecture, instead of `arch` and `source`.
    #[serde(default)]
    #[schemars(with = "BTreeMap<Arch, Source>", extend("minProperties" = 1))]
    sources: Option<BTreeMap<String, Source>>,
    /// Images are not built yet; the key is known so that its refusal says what to write instead.
    #[serde(default, rename = "build", deserialize_with = "no_build")]
    #[schemars(skip)]
    _build: (),
    /// Where it should be; names of the workers' clouds.yaml, which this program's must share.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    clouds: Vec<CloudName>,
    /// How old the newest revision may become before another is made, such as 12h or 7d; at least 1m.
    interval: String,
    /// How many revisions stay on each cloud, 1 to 99.
    #[serde(default)]
    keep: Keep,
    /// The format of the disk; `auto` tells it from the bytes.
    #[serde(default)]
    disk_format: DiskFormat,
    /// Further properties of the image. Ours (`imagewright_*`), `owner*`, `os_hash_*` and core attributes are refused.
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// Who may see the image.
    #[serde(default)]
    visibility: Visibility,
}

fn file_version() -> u32 {
    FILE_VERSION
}

fn no_build<'de, D: Deserializer<'de>>(_: D) -> Result<(), D::Error> {
    Err(D::Error::custom("images are not built yet: give arch and source, or sources"))
}

/// Every (image, architecture, cloud) that the text asks for, in its order.
///
/// # Errors
/// The first thing that is wrong, with the path of the key and what would be right.
pub(crate) fn parse(text: &str) -> Result<Vec<Target>, String> {
    let desired: Desired = yaml::parse(text).map_err(|error| error.to_string())?;
    if desired.version != FILE_VERSION {
        return Err(format!("version: {} is unknown here: this program reads version 1", desired.version));
    }
    let mut targets = Vec::new();
    let mut asked = HashMap::new();
    for (place, entry) in desired.images.iter().enumerate() {
        let path = format!("images[{place}]");
        for target in entry.targets(&path)? {
            let UploadSpec { name, arch, cloud, .. } = &target.spec;
            if let Some(before) = asked.insert((name.clone(), *arch, cloud.clone()), path.clone()) {
                return Err(format!("{path}.clouds: {name} for {arch} on {cloud} is asked for in {before} already"));
            }
            targets.push(target);
        }
    }
    Ok(targets)
}

impl Entry {
    fn targets(&self, path: &str) -> Result<Vec<Target>, String> {
        if self.clouds.is_empty() {
            return Err(format!("{path}.clouds: empty: name at least one cloud"));
        }
        let interval = interval(&self.interval).map_err(|reason| format!("{path}.interval: {reason}"))?;
        let mut targets = Vec::new();
        for (field, arch, source) in self.sources(path)? {
            let field = format!("{path}.{field}");
            if let Source::Url { url, .. } = source {
                upload::fetchable(url).map_err(|reason| format!("{field}.url: {reason}"))?;
            }
            for cloud in &self.clouds {
                let spec = self.spec(arch, cloud, source);
                check(&spec).map_err(|error| format!("{}: {}", placed(&error.field, path, &field), error.reason))?;
                targets.push(Target { spec, interval });
            }
        }
        Ok(targets)
    }

    /// Each architecture with its source, and the field that names it.
    fn sources(&self, path: &str) -> Result<Vec<(String, Arch, &Source)>, String> {
        let wrong = |field: &str, reason: &str| Err(format!("{path}.{field}: {reason}"));
        match (self.arch, &self.source, &self.sources) {
            (Some(arch), Some(source), None) => Ok(vec![("source".to_owned(), arch, source)]),
            (None, None, Some(sources)) if sources.is_empty() => {
                wrong("sources", "empty: give a source for at least one architecture")
            }
            (None, None, Some(sources)) => sources
                .iter()
                .map(|(word, source)| {
                    let arch: Arch = word.parse().map_err(|error| format!("{path}.sources.{word}: {error}"))?;
                    Ok((format!("sources.{word}"), arch, source))
                })
                .collect(),
            (_, _, Some(_)) => wrong("sources", "not beside arch or source: give either these two, or sources"),
            (Some(_), None, None) => wrong("source", "missing: say where the bytes come from"),
            (None, Some(_), None) => wrong("arch", "missing: say what the source runs on"),
            (None, None, None) => {
                wrong("source", "missing: give arch and source, or sources with one for each architecture")
            }
        }
    }

    fn spec(&self, arch: Arch, cloud: &CloudName, source: &Source) -> UploadSpec {
        UploadSpec {
            name: self.name.clone(),
            arch,
            cloud: cloud.clone(),
            keep: self.keep,
            source: source.clone(),
            disk_format: self.disk_format,
            properties: self.properties.clone(),
            visibility: self.visibility,
        }
    }
}

fn interval(text: &str) -> Result<SignedDuration, String> {
    let interval = time::duration(text)?;
    if interval < slot::SHORTEST {
        return Err(format!("{text:?} is shorter than a minute"));
    }
    if interval.subsec_nanos() != 0 {
        return Err(format!("{text:?} is not of whole seconds"));
    }
    Ok(interval)
}

/// What a worker would refuse is refused before anything is asked.
fn check(spec: &UploadSpec) -> Result<(), wire::DecodeError> {
    let spec = Spec::Upload(spec.clone());
    let message = Message {
        version: VERSION,
        id: Uuid::nil(),
        parent: None,
        asked_at: None,
        deadline: None,
        spec,
        progress: None,
    };
    let payload = wire::encode(&message).unwrap_or_default();
    wire::decode(&payload, Timestamp::UNIX_EPOCH).map(drop)
}

/// A field of the message as the file spells it.
fn placed(field: &str, path: &str, source: &str) -> String {
    match field.strip_prefix("spec.") {
        Some(rest) => match rest.strip_prefix("source") {
            Some(rest) => format!("{source}{rest}"),
            None => format!("{path}.{rest}"),
        },
        None => path.to_owned(),
    }
}

/// The JSON Schema (draft 2020-12) of the file. It accepts what [`parse`] accepts, but for what schemas cannot say: the
/// form of an interval, and that no image stands twice.
pub(crate) fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Desired>().to_value();
    schema["$id"] = json!(ID);
    schema["title"] = json!("Imagewright schedule file, version 1");
    if let Some(properties) = schema.pointer_mut("/$defs/Entry/properties/properties") {
        properties["propertyNames"] = job::property_names();
    }
    for absent in ["arch", "source", "sources"] {
        if let Some(Value::Object(key)) = schema.pointer_mut(&format!("/$defs/Entry/properties/{absent}")) {
            key.remove("default");
        }
    }
    schema
}

#[cfg(test)]
mod tests;
