//! The file of desired images: read strictly, checked as a worker would check the jobs, and its JSON Schema.

use std::collections::{BTreeMap, HashMap};

use imagewright_common::arch::Arch;
use imagewright_common::job::{
    self, Base, BuildSpec, CloudName, DiskFormat, HostPort, ImageName, Keep, Message, Prefix, RunnerVersion, Script,
    Source, Spec, UploadSpec, VERSION, Visibility,
};
use imagewright_common::{wire, yaml};
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Deserialize;
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
    { "required": ["arch", "source"], "not": { "anyOf": [{ "required": ["sources"] }, { "required": ["build"] }] } },
    { "required": ["sources"], "not": { "anyOf": [
        { "required": ["arch"] }, { "required": ["source"] }, { "required": ["build"] },
    ] } },
    { "required": ["arch", "build"], "not": { "anyOf": [
        { "required": ["source"] }, { "required": ["sources"] }, { "required": ["disk_format"] },
        { "required": ["properties"] }, { "required": ["visibility"] },
    ] } },
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
    /// How it is built, instead of a source; goes with `arch`.
    #[serde(default)]
    #[schemars(with = "Build")]
    build: Option<Build>,
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
    #[schemars(with = "DiskFormat")]
    disk_format: Option<DiskFormat>,
    /// Further properties of the image. Ours (`imagewright_*`), `owner*`, `os_hash_*` and core attributes are refused.
    #[serde(default)]
    properties: BTreeMap<String, String>,
    /// Who may see the image.
    #[serde(default)]
    #[schemars(with = "Visibility")]
    visibility: Option<Visibility>,
}

/// How an image is built, as in the `build` message.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Build {
    /// Where it is built; it is kept there too.
    cloud: CloudName,
    /// What it is built from: focal, jammy, noble, resolute, their versions, or `image:NAME-OR-ID`.
    base: Base,
    /// The flavor of the builder, by name or id.
    #[serde(default)]
    #[schemars(with = "String")]
    flavor: Option<String>,
    /// The network of the builder, by name or id.
    #[serde(default)]
    #[schemars(with = "String")]
    network: Option<String>,
    /// The version of the runner agent.
    #[serde(default)]
    #[schemars(with = "RunnerVersion")]
    runner_version: Option<RunnerVersion>,
    /// How names of servers, key pairs and groups begin.
    #[serde(default)]
    #[schemars(with = "Prefix")]
    prefix: Option<Prefix>,
    /// The proxy of the builder.
    #[serde(default)]
    #[schemars(with = "HostPort")]
    proxy: Option<HostPort>,
    /// Run on the builder as root.
    #[serde(default)]
    #[schemars(with = "Script")]
    script: Option<Script>,
    /// Run on a server that was booted from the image.
    #[serde(default)]
    #[schemars(with = "String")]
    check: Option<String>,
}

fn file_version() -> u32 {
    FILE_VERSION
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
            let Target { name, arch, .. } = &target;
            for cloud in target.clouds() {
                if let Some(before) = asked.insert((name.clone(), *arch, cloud.clone()), path.clone()) {
                    return Err(format!(
                        "{path}.clouds: {name} for {arch} on {cloud} is asked for in {before} already"
                    ));
                }
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
        if let Some(build) = &self.build {
            return self.built(build, path, interval).map(|target| vec![target]);
        }
        let mut targets = Vec::new();
        for (field, arch, source) in self.sources(path)? {
            let field = format!("{path}.{field}");
            if let Source::Url { url, .. } = source {
                upload::fetchable(url).map_err(|reason| format!("{field}.url: {reason}"))?;
            }
            for cloud in &self.clouds {
                let spec = self.spec(arch, cloud, source);
                check(&spec).map_err(|error| format!("{}: {}", placed(&error.field, path, &field), error.reason))?;
                let (name, cloud) = (self.name.clone(), cloud.clone());
                targets.push(Target { name, arch, cloud, also: Vec::new(), spec, interval });
            }
        }
        Ok(targets)
    }

    /// One build serves all clouds.
    fn built(&self, build: &Build, path: &str, interval: SignedDuration) -> Result<Target, String> {
        let wrong = |field: &str, reason: &str| Err(format!("{path}.{field}: {reason}"));
        let Some(arch) = self.arch else { return wrong("arch", "missing: say what is built") };
        let beside = [
            ("source", self.source.is_some()),
            ("sources", self.sources.is_some()),
            ("disk_format", self.disk_format.is_some()),
            ("properties", !self.properties.is_empty()),
            ("visibility", self.visibility.is_some()),
        ];
        if let Some((field, _)) = beside.into_iter().find(|(_, is_given)| *is_given) {
            return wrong(field, "not beside build");
        }
        if let Some(script) = &build.script {
            upload::fetchable(&script.url).map_err(|reason| format!("{path}.build.script.url: {reason}"))?;
        }
        let also: Vec<CloudName> = self.clouds.iter().filter(|cloud| **cloud != build.cloud).cloned().collect();
        let spec = Spec::Build(BuildSpec {
            name: self.name.clone(),
            arch,
            base: build.base.clone(),
            cloud: build.cloud.clone(),
            upload_to: also.clone(),
            keep: self.keep,
            flavor: build.flavor.clone(),
            network: build.network.clone(),
            runner_version: build.runner_version.clone(),
            prefix: build.prefix.clone(),
            proxy: build.proxy.clone(),
            script: build.script.clone(),
            check: build.check.clone(),
            force: false,
        });
        check(&spec).map_err(|error| format!("{}: {}", placed(&error.field, path, path), error.reason))?;
        Ok(Target { name: self.name.clone(), arch, cloud: build.cloud.clone(), also, spec, interval })
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
            (None, None, None) => wrong(
                "source",
                "missing: give arch and source, sources with one for each architecture, or arch and build",
            ),
        }
    }

    fn spec(&self, arch: Arch, cloud: &CloudName, source: &Source) -> Spec {
        Spec::Upload(UploadSpec {
            name: self.name.clone(),
            arch,
            cloud: cloud.clone(),
            keep: self.keep,
            source: source.clone(),
            disk_format: self.disk_format.unwrap_or_default(),
            properties: self.properties.clone(),
            visibility: self.visibility.unwrap_or_default(),
        })
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
fn check(spec: &Spec) -> Result<(), wire::DecodeError> {
    let spec = spec.clone();
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
    for place in ["Entry", "Build"] {
        let Some(Value::Object(keys)) = schema.pointer_mut(&format!("/$defs/{place}/properties")) else { continue };
        for key in keys.values_mut().filter_map(Value::as_object_mut) {
            if key.get("default").is_some_and(Value::is_null) {
                key.remove("default");
            }
        }
    }
    schema
}

#[cfg(test)]
mod tests;
