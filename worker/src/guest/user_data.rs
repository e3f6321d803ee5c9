//! What cloud-init is told on a server that a build boots: who may log in, and by what the server is known.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::USER;
use crate::builders::Keys;

/// The user-data, Base64: a cloud-config (cloud-init: "Cloud config data"), written as JSON, which is YAML too.
pub(crate) fn render(keys: &Keys) -> SecretString {
    let config = json!({
        "users": ["default", {
            "name": USER,
            "gecos": "removed before the image is made",
            "shell": "/bin/sh",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": true,
            "ssh_authorized_keys": [keys.user.public],
        }],
        "ssh_deletekeys": true,
        "ssh_genkeytypes": [],
        "ssh_keys": {
            "ed25519_private": keys.host.private.expose_secret(),
            "ed25519_public": keys.host.public,
        },
        "ssh_pwauth": false,
        "disable_root": true,
        "package_update": false,
        "package_upgrade": false,
        "manage_etc_hosts": false,
    });
    SecretString::from(STANDARD.encode(format!("#cloud-config\n{config:#}\n")))
}
