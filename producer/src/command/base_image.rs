//! `imagewright base-image`

use clap::Args;
use imagewright_common::arch::Arch;
use imagewright_common::job::{BaseImageSpec, CloudName, ImageName, Keep, Origin, Release, Source, Spec};
use url::Url;

use super::upload::{fetchable, web};
use crate::context::Context;
use crate::exit::{Exit, Failure};
use crate::{clouds, enqueue};

/// Put Ubuntu's current cloud image on clouds, as the base that builds start from, if they lack it.
///
/// One job per release and cloud. The workers check the signature of the mirror's list of digests and upload what it
/// vouches for; nothing is uploaded where the newest image already is that one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  imagewright base-image --arch amd64 --base noble,jammy --cloud build-1 --wait
  imagewright base-image --arch arm64 --base 24.04 --cloud build-1 --mirror https://mirror.example.org/cloud-images
  imagewright base-image --arch amd64 --base noble --cloud build-1 \\
      --url https://images.example.org/noble.img \\
      --sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
pub(crate) struct Options {
    /// What it runs on: amd64, arm64, s390x, ppc64le or armhf, which means Ubuntu's arm64 image.
    #[arg(long)]
    arch: Arch,
    /// The Ubuntu release, by codename or version: focal, jammy, noble, resolute or 20.04 to 26.04.
    #[arg(long, required = true, value_name = "RELEASE[,RELEASE...]", value_delimiter = ',')]
    base: Vec<Release>,
    /// Where it goes; names of the workers' clouds.yaml. OS_CLOUD when not said.
    #[arg(long, value_name = "CLOUD[,CLOUD...]", value_delimiter = ',')]
    cloud: Vec<CloudName>,
    /// What the image is called; imagewright-base-CODENAME-ARCH when not said, where builds look for it.
    #[arg(long)]
    name: Option<ImageName>,
    /// An https address that holds what cloud-images.ubuntu.com does; that itself when not said.
    #[arg(long, value_name = "URL", conflicts_with_all = ["url", "sha256"])]
    mirror: Option<String>,
    /// The image at this https address instead; --sha256 says what must be found there, and no signature is asked for.
    #[arg(long, requires = "sha256")]
    url: Option<String>,
    /// The SHA-256 of what --url holds, in hexadecimal.
    #[arg(long, value_name = "HEX", requires = "url")]
    sha256: Option<String>,
    /// How many revisions stay on each cloud, 1 to 99.
    #[arg(long, default_value_t)]
    keep: Keep,
    #[command(flatten)]
    enqueue: enqueue::Options,
}

pub(crate) async fn run(context: &Context, options: Options) -> Result<Exit, Failure> {
    let clouds = clouds::required(&options.cloud)?;
    let origin = options.origin()?;
    let mut bases = options.base.clone();
    bases.sort_unstable();
    bases.dedup();
    if bases.len() > 1 && (options.name.is_some() || options.url.is_some()) {
        return Err(Failure::usage("spec.name: --name and --url are for one release: give --base once"));
    }
    let spec = |base: Release, cloud: &CloudName| {
        Spec::BaseImage(BaseImageSpec {
            arch: options.arch,
            base,
            cloud: cloud.clone(),
            keep: options.keep,
            name: options.name.clone().unwrap_or_else(|| BaseImageSpec::default_name(base, options.arch)),
            origin: origin.clone(),
        })
    };
    let specs = clouds.iter().flat_map(|cloud| bases.iter().map(move |base| (*base, cloud)));
    enqueue::run(context, specs.map(|(base, cloud)| spec(base, cloud)).collect(), &options.enqueue).await
}

impl Options {
    fn origin(&self) -> Result<Origin, Failure> {
        match (&self.mirror, &self.url, &self.sha256) {
            (Some(mirror), None, None) => mirror_at(mirror).map(|url| Origin::Mirror(Some(url))),
            (None, Some(url), Some(sha256)) => match web(url, sha256)? {
                Source::Url { url, sha256 } => Ok(Origin::Download { url, sha256 }),
                Source::File(_) | Source::Image(_) => Err(Failure::usage("spec.source: --url is no address")),
            },
            _ => Ok(Origin::Mirror(None)),
        }
    }
}

/// An address may hold a signature in its query, so no error quotes it.
fn mirror_at(text: &str) -> Result<Url, Failure> {
    let wrong = |reason: String| Failure::usage(format!("spec.mirror: --mirror {reason}"));
    let url = Url::parse(text).map_err(|error| wrong(format!("is no address: {error}")))?;
    fetchable(&url).map_err(wrong)?;
    Ok(url)
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

    fn origin(line: &str) -> Result<Origin, String> {
        let base = "x --arch x64 --base noble,22.04 --cloud c";
        let words = base.split(' ').chain(line.split(' ').filter(|word| !word.is_empty()));
        let line = Line::try_parse_from(words).map_err(|error| error.to_string())?;
        assert_eq!(line.options.base, [Release::Noble, Release::Jammy]);
        line.options.origin().map_err(|failure| failure.text)
    }

    #[test]
    fn the_origin_is_a_mirror_or_one_file() {
        assert_eq!(origin(""), Ok(Origin::Mirror(None)));
        assert_eq!(origin("--mirror https://m/x"), Ok(Origin::Mirror(Some("https://m/x".parse().unwrap()))));
        let sha = "ab".repeat(32);
        assert!(matches!(origin(&format!("--url https://h/i --sha256 {sha}")), Ok(Origin::Download { .. })));
        assert!(origin("--mirror http://m/?s3cret").unwrap_err().starts_with("spec.mirror: --mirror begins with http"));
        assert!(!origin("--mirror nowhere?s3cret").unwrap_err().contains("s3cret"));
        assert!(origin(&format!("--url https://h/i --sha256 {sha} --mirror https://m")).is_err());
        assert!(origin("--url https://h/i").is_err());
    }
}
