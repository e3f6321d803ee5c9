//! From recipe, content and login to user-data: a cloud-config (cloud-init: "Cloud config data"), written as JSON, which
//! is YAML too.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Content, ContentError, Recipe};

/// Where the content lies on the builder: memory, which is gone when the builder stops.
const FOLDER: &str = "/run/imagewright-content";

/// The most that Nova's API takes, in bytes of Base64.
pub(super) const SIZE_MAX: usize = 65535;

const PROVISION: &str = include_str!("../../content/provision");

/// Who logs in to the builder, and by what it is known. Made anew for each build, and no part of the template.
pub(crate) struct Login<'a> {
    /// A user that exists on builders alone.
    pub(crate) user: &'a str,
    /// Its key, in the format of OpenSSH.
    pub(crate) public_key: &'a str,
    /// The Ed25519 key of the builder itself.
    pub(crate) host_private: &'a SecretString,
    /// Its public half.
    pub(crate) host_public: &'a str,
}

/// What Nova is given.
pub(crate) struct UserData {
    /// Base64. It holds the private key of the builder, which no image keeps.
    pub(crate) base64: SecretString,
    /// SHA-256 over all of it but the login, for the stamp: the same for every build of the same content.
    pub(crate) template_digest: String,
}

/// The user-data of a builder. It provisions when the builder boots; the first failure ends that, and `cloud-init status`
/// says so. What was made is told in the image, in `/usr/share/imagewright/facts`.
///
/// # Errors
/// [`ContentError`]: the content or a choice is wrong, or it is too large for Nova.
pub(crate) fn render(recipe: &Recipe, content: &Content, login: &Login) -> Result<UserData, ContentError> {
    let template = template(recipe, content)?;
    let template_digest = sha256(template.to_string().as_bytes());
    let text = document(template, login);
    let plain = STANDARD.encode(&text);
    let base64 = if plain.len() <= SIZE_MAX { plain } else { STANDARD.encode(compressed(text.as_bytes())) };
    if base64.len() > SIZE_MAX {
        return Err(ContentError::TooLarge { size: base64.len(), most: SIZE_MAX, largest: content.largest() });
    }
    Ok(UserData { base64: SecretString::from(base64), template_digest })
}

/// The user-data of a server that is only looked at, Base64.
pub(crate) fn login_only(login: &Login) -> SecretString {
    let nothing = json!({ "package_update": false, "package_upgrade": false });
    SecretString::from(STANDARD.encode(document(nothing, login)))
}

/// Everything but the login.
fn template(recipe: &Recipe, content: &Content) -> Result<Value, ContentError> {
    let file = |name: &str, mode: &str, text: &str| json!({ "path": format!("{FOLDER}/{name}"), "permissions": mode, "content": text });
    let mut files = vec![file("environment", "0600", &recipe.environment(content)?)];
    files.extend(content.scripts().map(|(name, text)| file(&format!("scripts/{name}"), "0600", text)));
    files.push(file("provision", "0700", PROVISION));
    Ok(json!({
        "package_update": false,
        "package_upgrade": false,
        "write_files": files,
        "runcmd": [["bash", format!("{FOLDER}/provision")]],
    }))
}

fn document(mut template: Value, login: &Login) -> String {
    let access = json!({
        "users": ["default", {
            "name": login.user,
            "gecos": "removed before the image is made",
            "shell": "/bin/sh",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "lock_passwd": true,
            "ssh_authorized_keys": [login.public_key],
        }],
        "ssh_deletekeys": true,
        "ssh_genkeytypes": [],
        "ssh_keys": {
            "ed25519_private": login.host_private.expose_secret(),
            "ed25519_public": login.host_public,
        },
        "ssh_pwauth": false,
        "disable_root": true,
        "manage_etc_hosts": false,
    });
    if let (Value::Object(config), Value::Object(access)) = (&mut template, access) {
        config.extend(access);
    }
    format!("#cloud-config\n{template:#}\n")
}

/// As gzip, which cloud-init takes for all user-data; without a time, so that equal content is equal bytes.
fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    // Writing to memory cannot fail.
    drop(encoder.write_all(bytes));
    encoder.finish().unwrap_or_default()
}

/// The SHA-256 of `bytes`, in lower-case hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
