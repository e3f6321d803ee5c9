//! The library without a queue: upload a file as the newest revision of an image, keep the newest few, and say which
//! is the latest. `upload_image ARCH CLOUD NAME FILE KEEP` prints the created image and the latest id as JSON.

use std::error::Error;
use std::io::Write as _;
use std::path::Path;

use imagewright_common::openstack::Clouds;
use imagewright_common::store::{CloudPool, get_latest_build_id, upload_image};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [arch, cloud, name, file, keep] = words.as_slice() else {
        return Err("usage: upload_image ARCH CLOUD NAME FILE KEEP".into());
    };
    let (arch, cloud, name, keep) = (arch.parse()?, cloud.parse()?, name.parse()?, keep.parse()?);
    let pool = CloudPool::new(Clouds::load()?);
    let image = upload_image(&pool, arch, &cloud, &name, Path::new(file), keep).await?;
    let latest = get_latest_build_id(&pool, &cloud, &name, Some(arch), false).await?;
    let said = serde_json::json!({ "id": image.id, "size": image.size, "os_hash_value": image.os_hash_value, "latest": latest });
    writeln!(std::io::stdout(), "{said}")?;
    Ok(())
}
