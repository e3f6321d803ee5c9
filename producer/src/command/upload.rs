//! `imagewright upload`

use std::collections::BTreeMap;

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use imagewright_common::arch::Arch;
use imagewright_common::job::{CloudName, DiskFormat, ImageName, ImageRef, Keep, Source, Spec, UploadSpec, Visibility};
use url::Url;

use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{clouds, enqueue};

const FORMATS: [DiskFormat; 8] = [
    DiskFormat::Auto,
    DiskFormat::Qcow2,
    DiskFormat::Raw,
    DiskFormat::Vmdk,
    DiskFormat::Vdi,
    DiskFormat::Vhd,
    DiskFormat::Vhdx,
    DiskFormat::Iso,
];

const VISIBILITIES: [Visibility; 4] =
    [Visibility::Private, Visibility::Shared, Visibility::Community, Visibility::Public];

/// Make an image on one or several clouds, verify it, and keep only its newest revisions.
///
/// One job per cloud: a cloud that is away delays its own job only. Prints one job id a line. Images of one NAME are
/// revisions of each other, counted per architecture.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright upload --name noble --arch amd64 --cloud edge-1,edge-2 --file /srv/noble.img --wait
  imagewright upload --name noble --arch arm64 --cloud edge-1 --keep 3 \\
      --url https://images.example.org/noble.img \\
      --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  imagewright upload --name noble --arch amd64 --cloud edge-2 \\
      --from build:0f9f6a8e-2c5d-4f4f-9d9c-0b8f5a3c2d12")]
pub(crate) struct Options {
    /// What the image is called on the clouds; all revisions share the name.
    #[arg(long)]
    name: ImageName,
    /// What it runs on: amd64, arm64, s390x, ppc64le or armhf; x86_64, aarch64 and other common words mean the same.
    #[arg(long)]
    arch: Arch,
    /// Where it goes; names of the workers' clouds.yaml. OS_CLOUD when not said.
    #[arg(long, value_name = "CLOUD[,CLOUD...]", value_delimiter = ',')]
    cloud: Vec<CloudName>,
    /// The image is this file, as the workers see it: an absolute path beneath one of their --file-root.
    #[arg(long, value_name = "PATH", help_heading = "Source, exactly one")]
    file: Option<String>,
    /// The image is at this https address; --sha256 says what must be found there.
    #[arg(long, help_heading = "Source, exactly one")]
    url: Option<String>,
    /// The SHA-256 of what --url holds, in hexadecimal.
    #[arg(long, value_name = "HEX", help_heading = "Source, exactly one")]
    sha256: Option<String>,
    /// The image is copied from another cloud, by its id there.
    #[arg(long, value_name = "CLOUD:IMAGE", help_heading = "Source, exactly one")]
    from: Option<String>,
    /// How many revisions stay on each cloud, 1 to 99.
    #[arg(long, default_value_t)]
    keep: Keep,
    /// The format of the disk; auto tells it from the bytes.
    #[arg(long, value_name = "FORMAT", default_value_t, value_parser = formats())]
    disk_format: DiskFormat,
    /// A further property of the image; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = property)]
    property: Vec<(String, String)>,
    /// Who may see the image.
    #[arg(long, default_value_t, value_parser = visibilities())]
    visibility: Visibility,
    #[command(flatten)]
    enqueue: enqueue::Options,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let clouds = clouds::required(&options.cloud)?;
    let source = options.source()?;
    let properties = properties(&options.property)?;
    let spec = |cloud| {
        Spec::Upload(UploadSpec {
            name: options.name.clone(),
            arch: options.arch,
            cloud,
            keep: options.keep,
            source: source.clone(),
            disk_format: options.disk_format,
            properties: properties.clone(),
            visibility: options.visibility,
        })
    };
    enqueue::run(context, clouds.into_iter().map(spec).collect(), &options.enqueue).await
}

impl Options {
    fn source(&self) -> Result<Source, Failure> {
        match (&self.file, &self.url, &self.sha256, &self.from) {
            (Some(path), None, None, None) if path.starts_with('/') => Ok(Source::File(path.clone())),
            (Some(path), None, None, None) => Err(Failure::usage(format!(
                "spec.source.file: {path:?} is relative, which means another file on each worker: give --file an absolute path"
            ))),
            (None, Some(url), Some(sha256), None) => web(url, sha256),
            (None, Some(_), None, None) => {
                Err(Failure::usage("spec.source.sha256: --url needs --sha256, or nobody can tell what is fetched"))
            }
            (None, None, Some(_), None) => Err(Failure::usage("spec.source.url: --sha256 goes with --url")),
            (None, None, None, Some(from)) => image(from),
            _ => Err(Failure::usage("spec.source: give exactly one of --file, --url with --sha256, or --from")),
        }
    }
}

/// An address may hold a signature in its query, so no error quotes it.
pub(super) fn web(url: &str, sha256: &str) -> Result<Source, Failure> {
    let wrong = |reason: String| Failure::usage(format!("spec.source.url: {reason}"));
    let url = Url::parse(url).map_err(|error| wrong(format!("--url is no address: {error}")))?;
    fetchable(&url).map_err(|reason| wrong(format!("--url {reason}")))?;
    Source::url(url, sha256).map_err(|error| Failure::usage(format!("spec.source.sha256: {error}")))
}

/// Whether workers would fetch from an address, as far as it can be told without them.
pub(crate) fn fetchable(url: &Url) -> Result<(), String> {
    if url.scheme() != "https" {
        return Err(format!("begins with {}: workers fetch https only", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password, which no message may".to_owned());
    }
    Ok(())
}

fn image(from: &str) -> Result<Source, Failure> {
    let wrong = |reason: String| Failure::usage(format!("spec.source.image: {reason}"));
    let (cloud, id) = from
        .rsplit_once(':')
        .ok_or_else(|| wrong(format!("--from {from:?} is not CLOUD:IMAGE, as in build:IMAGE-ID")))?;
    let cloud = cloud.parse().map_err(|error| wrong(format!("--from: {error}")))?;
    Ok(Source::Image(ImageRef { cloud, id: id.to_owned() }))
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as in os_distro=ubuntu")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn properties(pairs: &[(String, String)]) -> Result<BTreeMap<String, String>, Failure> {
    let mut properties = BTreeMap::new();
    for (key, value) in pairs {
        if properties.insert(key.clone(), value.clone()).is_some() {
            return Err(Failure::usage(format!("spec.properties.{key}: --property sets it twice")));
        }
    }
    Ok(properties)
}

fn formats() -> impl TypedValueParser<Value = DiskFormat> {
    PossibleValuesParser::new(FORMATS.map(DiskFormat::as_str))
        .try_map(|word| known(&FORMATS, DiskFormat::as_str, &word))
}

fn visibilities() -> impl TypedValueParser<Value = Visibility> {
    PossibleValuesParser::new(VISIBILITIES.map(Visibility::as_str))
        .try_map(|word| known(&VISIBILITIES, Visibility::as_str, &word))
}

fn known<T: Copy>(all: &[T], as_str: fn(T) -> &'static str, word: &str) -> Result<T, String> {
    all.iter().copied().find(|value| as_str(*value) == word).ok_or_else(|| format!("unknown word {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn source(line: &str) -> Result<String, String> {
        let base = "x --name n --arch x64 --cloud c";
        let line = Line::try_parse_from(base.split(' ').chain(line.split(' '))).map_err(|error| error.to_string())?;
        line.options.source().map(|source| format!("{source:?}")).map_err(|failure| failure.text)
    }

    #[test]
    fn exactly_one_source() {
        let sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00A08";
        assert_eq!(source("--file /f").unwrap(), r#"File("/f")"#);
        assert!(source(&format!("--url https://h/i --sha256 {sha}")).unwrap().contains("f00a08"));
        assert!(source("--from build:0f9f").unwrap().contains(r#"id: "0f9f""#));
        for (line, field) in [
            ("--keep 5", "spec.source"),
            ("--file f", "spec.source.file"),
            ("--file /f --from a:b", "spec.source"),
            ("--url https://h/i", "spec.source.sha256"),
            ("--url https://h/i --sha256 12", "spec.source.sha256"),
            ("--url http://h/i --sha256 12", "spec.source.url"),
            ("--url https://u:secret@h/i --sha256 12", "spec.source.url"),
            ("--url nowhere?secret --sha256 12", "spec.source.url"),
            ("--sha256 12", "spec.source.url"),
            ("--from build", "spec.source.image"),
        ] {
            let error = source(line).unwrap_err();
            assert!(error.starts_with(field) && !error.contains("secret"), "{line}: {error}");
        }
    }

    #[test]
    fn the_word_lists_are_whole() {
        for format in FORMATS {
            assert_eq!(serde_json::to_value(format).unwrap(), format.as_str());
        }
        for visibility in VISIBILITIES {
            assert_eq!(serde_json::to_value(visibility).unwrap(), visibility.as_str());
        }
    }

    #[test]
    fn a_property_is_set_once() {
        let pair = |text| property(text).unwrap();
        assert_eq!(pair("a=b=c"), ("a".to_owned(), "b=c".to_owned()));
        assert!(property("a").is_err());
        assert!(properties(&[pair("a=1"), pair("a=2")]).unwrap_err().text.contains("spec.properties.a"));
    }
}
