//! The transfer alone, as `tests/bench` measures it: `bench_transfer [--no-digest] NAME FILE CLOUD...` makes an image of
//! the file on every cloud at once, and prints the digest of what it sent. With `--no-digest` nothing is hashed, as when
//! the digest is known already: from another cloud that got the same file, or from a Glance that is the source.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::path::Path;

use imagewright_common::job::{CloudName, DiskFormat};
use imagewright_common::openstack::{Clouds, Glance, NewImage};
use imagewright_common::source::digest::{Claim, Key};
use imagewright_common::source::{DigestCache, FileRoots, HashAlgo, Opened};
use imagewright_common::store::CloudPool;
use uuid::Uuid;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let hashes = words.first().is_some_and(|word| word != "--no-digest");
    let rest = words.get(usize::from(!hashes)..).unwrap_or_default();
    let [name, file, clouds @ ..] = rest else {
        return Err("usage: bench_transfer [--no-digest] NAME FILE CLOUD...".into());
    };
    let file = std::path::absolute(file)?;
    let roots = FileRoots::open_all(&[file.parent().unwrap_or(Path::new("/"))])?;
    let (pool, cache) = (CloudPool::new(Clouds::load()?), DigestCache::default());
    let source = roots.open(&file.display().to_string())?;
    if !hashes && let Claim::Compute(guard) = cache.claim(Key { identity: source.identity(), algo: HashAlgo::Sha512 }) {
        guard.tell("not hashed");
    }
    let mut sends = tokio::task::JoinSet::new();
    for cloud in clouds {
        let cloud: CloudName = cloud.parse()?;
        let opened = Opened::from_file(source.clone(), DiskFormat::Auto, &cache).await?;
        sends.spawn(send(pool.glance(&cloud).await?, name.clone(), opened));
    }
    while let Some(sent) = sends.join_next().await {
        writeln!(std::io::stdout(), "{}", sent??)?;
    }
    Ok(())
}

/// Create, send, look: what `openstack image create` does as well.
async fn send(glance: Glance, name: String, opened: Opened) -> Result<String, Failure> {
    let (id, length) = (Uuid::now_v7(), opened.length);
    let image = NewImage {
        id,
        name,
        disk_format: opened.format.to_string(),
        container_format: "bare".to_owned(),
        visibility: "private".to_owned(),
        architecture: None,
        properties: BTreeMap::new(),
    };
    glance.create(&image).await?;
    let (stream, ticket) = opened.into_stream();
    glance.upload(&id.to_string(), length, reqwest::Body::wrap_stream(stream)).await?;
    let digests = ticket.finish().await?;
    let image = glance.get(&id.to_string()).await?.value;
    Ok(format!("{} {} {}", image.id, image.status.as_str(), digests.sha512))
}
