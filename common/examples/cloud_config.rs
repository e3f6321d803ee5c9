//! A test tool: prints, as JSON, how a cloud of `clouds.yaml` would be used, **secrets included**. The tests
//! hold it against what openstacksdk makes of the same files.
//!
//! `cloud_config` prints the names of all clouds, `cloud_config NAME` one cloud. An error goes to stderr, exit 1.

use std::io::Write;
use std::process::ExitCode;

use imagewright_common::openstack::{Clouds, ConfigError};
use serde_json::{Value, json};

fn main() -> ExitCode {
    match describe(std::env::args().nth(1).as_deref()) {
        Ok(description) => match writeln!(std::io::stdout(), "{description}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "failed to read the clouds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn describe(name: Option<&str>) -> Result<Value, ConfigError> {
    let clouds = Clouds::load()?;
    let Some(name) = name else { return Ok(json!(clouds.names())) };
    let cloud = clouds.get(name)?;
    let (token_url, token_request) = cloud.token_request();
    let image = cloud.services.get("image").cloned().unwrap_or_default();
    Ok(json!({
        "name": cloud.name,
        "token_url": token_url,
        "token_request": token_request,
        "region": image.region.or(cloud.region.clone()),
        "interface": image.interface.unwrap_or(cloud.interface).as_str(),
        "verify": cloud.verify,
        "cacert": cloud.cacert,
        "cert": cloud.client_cert.as_ref().map(|(cert, _)| cert),
        "key": cloud.client_cert.as_ref().and_then(|(_, key)| key.as_ref()),
        "image_endpoint": cloud.endpoint_override("image"),
    }))
}
