//! One cloud's merged keys -> [`CloudConfig`]. Precedence is openstacksdk's, key by key: see `OpenStackConfig`
//! in its `config/loader.py` (`_fix_backwards_auth`, `_handle_domain_id`, `_validate_auth`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::ConfigError;
use super::files::layer;
use super::keys::{Keys, normalized};
use super::types::{ApplicationCredentialId, Auth, CloudConfig, Interface, ProjectScope, Scope, ServiceConfig, User};
use crate::yaml::{Node, Nodes};

const SERVICES: [&str; 3] = ["image", "compute", "network"];

/// The profile a cloud refers to: `profile`, or the older `cloud`.
pub(super) fn profile_name(name: &str, cloud: &Nodes) -> Result<Option<String>, ConfigError> {
    let keys = Keys::new(name, normalized(cloud));
    Ok(keys.text("profile")?.or(keys.text("cloud")?))
}

/// Merges profile, cloud and the first region, and checks the result.
pub(super) fn cloud(
    name: &str,
    own: &Nodes,
    profile_name: Option<&str>,
    profile: Option<&Nodes>,
    home: Option<&Path>,
) -> Result<CloudConfig, ConfigError> {
    let own = normalized(own);
    let profile = profile.map(normalized).unwrap_or_default();
    let mut merged = Nodes::new();
    layer(&mut merged, &profile);
    layer(&mut merged, &own);
    match first_region(name, &own)? {
        Known::Region(region) => region.apply(&mut merged),
        Known::Nothing => match first_region(name, &profile)? {
            Known::Region(region) => region.apply(&mut merged),
            Known::Nothing => {}
        },
    }
    let keys = Keys::new(name, merged);
    let auth_url = keys.auth_first(&["auth_url"])?.ok_or_else(|| {
        let hint = match profile_name {
            Some(profile) => format!("is missing, and clouds-public.yaml has no profile {profile} with it"),
            None => "is missing: set it to the address of Keystone".to_owned(),
        };
        keys.invalid("auth.auth_url", hint)
    })?;
    let (verify, cacert) = trust(&keys, home)?;
    let path = |key| keys.text(key).map(|path| path.map(|path| expand_home(&path, home)));
    Ok(CloudConfig {
        name: name.to_owned(),
        auth: auth(&keys)?,
        auth_url: keys.url("auth.auth_url", &auth_url)?,
        region: keys.text("region_name")?,
        interface: keys.interface("")?.unwrap_or(Interface::Public),
        verify,
        cacert,
        client_cert: path("cert")?.map(|cert| path("key").map(|key| (cert, key))).transpose()?,
        services: services(&keys)?,
    })
}

/// What a layer says about regions.
enum Known {
    Region(Region),
    Nothing,
}

/// The first region of a layer and the values that hold for it alone.
struct Region {
    name: Option<String>,
    values: Nodes,
}

impl Region {
    fn apply(self, merged: &mut Nodes) {
        layer(merged, &normalized(&self.values));
        merged.insert("region_name".to_owned(), self.name.map_or(Node::Null, Node::Text));
    }
}

fn first_region(cloud: &str, nodes: &Nodes) -> Result<Known, ConfigError> {
    let invalid = |key: &str, problem: &str| ConfigError::Invalid {
        cloud: cloud.to_owned(),
        key: key.to_owned(),
        problem: problem.to_owned(),
    };
    let (key, list) = match (nodes.get("regions"), nodes.get("region_name")) {
        (Some(Node::List(list)), _) => ("regions", list.as_slice()),
        (Some(Node::Bool(_) | Node::Text(_) | Node::Map(_)), _) => {
            return Err(invalid("regions", "is not a list"));
        }
        (Some(Node::Null) | None, Some(Node::List(list))) => ("region_name", list.as_slice()),
        (Some(Node::Null) | None, Some(Node::Text(names))) => {
            let name = names.split(',').next().map(str::to_owned).filter(|name| !name.is_empty());
            return Ok(Known::Region(Region { name, values: Nodes::new() }));
        }
        (Some(Node::Null) | None, Some(Node::Null) | None) => return Ok(Known::Nothing),
        (Some(Node::Null) | None, Some(Node::Bool(_) | Node::Map(_))) => {
            return Err(invalid("region_name", "is not a string: put it in quotes"));
        }
    };
    let region = match list.first() {
        None => Region { name: None, values: Nodes::new() },
        Some(Node::Text(name)) => Region { name: Some(name.clone()), values: Nodes::new() },
        Some(Node::Map(entry)) => match (entry.get("name"), entry.get("values")) {
            (Some(Node::Text(name)), Some(Node::Map(values))) => {
                Region { name: Some(name.clone()), values: values.clone() }
            }
            (Some(Node::Text(name)), None) => Region { name: Some(name.clone()), values: Nodes::new() },
            (_, _) => return Err(invalid(key, "has an entry that is not a name, or name and values")),
        },
        Some(Node::Null | Node::Bool(_) | Node::List(_)) => {
            return Err(invalid(key, "has an entry that is not a string: put it in quotes"));
        }
    };
    Ok(Known::Region(region))
}

/// Whether certificates are checked, and against which file.
fn trust(keys: &Keys<'_>, home: Option<&Path>) -> Result<(bool, Option<PathBuf>), ConfigError> {
    let cacert = keys.text("cacert")?.map(|path| expand_home(&path, home));
    let insecure = match keys.map.get("insecure") {
        Some(Node::Bool(insecure)) => *insecure,
        Some(Node::Text(text)) => text.eq_ignore_ascii_case("true"),
        Some(Node::Null | Node::List(_) | Node::Map(_)) | None => false,
    };
    let (verify, bundle) = match keys.map.get("verify") {
        None | Some(Node::Null) => (true, None),
        Some(Node::Bool(verify)) => (*verify, None),
        Some(Node::Text(text)) => match text.to_ascii_lowercase().as_str() {
            "no" | "false" | "off" | "0" | "n" => (false, None),
            "yes" | "true" | "on" | "1" | "y" | "" => (true, None),
            // requests, beneath openstacksdk, takes any other string for a file of authorities.
            _ => (true, Some(expand_home(text, home))),
        },
        Some(Node::List(_) | Node::Map(_)) => return Err(keys.invalid("verify", "is not true or false")),
    };
    let verify = verify && !insecure;
    Ok((verify, cacert.or(bundle).filter(|_| verify)))
}

fn expand_home(path: &str, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        (_, _) => PathBuf::from(path),
    }
}

fn services(keys: &Keys<'_>) -> Result<BTreeMap<String, ServiceConfig>, ConfigError> {
    let mut services = BTreeMap::new();
    for service in SERVICES {
        let key = format!("{service}_endpoint_override");
        let endpoint = keys.text(&key)?.or(keys.text(&format!("{service}_endpoint"))?);
        let config = ServiceConfig {
            endpoint_override: endpoint.map(|endpoint| keys.url(&key, &endpoint)).transpose()?,
            interface: keys.interface(&format!("{service}_"))?,
            region: keys.text(&format!("{service}_region_name"))?,
        };
        if config != ServiceConfig::default() {
            services.insert(service.to_owned(), config);
        }
    }
    Ok(services)
}

fn auth(keys: &Keys<'_>) -> Result<Auth, ConfigError> {
    if keys.text("identity_api_version")?.is_some_and(|version| version.starts_with('2')) {
        return Err(keys.invalid("identity_api_version", "is 2: only version 3 is supported"));
    }
    let method = keys.text("auth_type")?.unwrap_or_else(|| "password".to_owned());
    match method.as_str() {
        "password" | "v3password" => Ok(Auth::Password {
            user: user(keys)?.ok_or_else(|| {
                keys.invalid(
                    "auth.username",
                    "is missing (application credentials need auth_type: v3applicationcredential)",
                )
            })?,
            password: keys.secret("password", &["password"])?,
            scope: scope(keys)?,
        }),
        "v3applicationcredential" => Ok(Auth::ApplicationCredential {
            id: application_credential(keys)?,
            secret: keys.secret("application_credential_secret", &["application_credential_secret"])?,
        }),
        "token" | "v3token" => {
            let token = keys.top_first(&["auth_token", "token"])?.map(SecretString::from);
            let token = token.ok_or_else(|| keys.invalid("auth.token", "is missing"))?;
            Ok(Auth::Token { token, scope: scope(keys)? })
        }
        _ => Err(keys.invalid(
            "auth_type",
            "is not supported: use password, v3password, v3applicationcredential, token or v3token",
        )),
    }
}

fn application_credential(keys: &Keys<'_>) -> Result<ApplicationCredentialId, ConfigError> {
    if let Some(id) = keys.auth_first(&["application_credential_id"])? {
        return Ok(ApplicationCredentialId::Id(id));
    }
    let name = keys.auth_first(&["application_credential_name"])?;
    match (name, user(keys)?) {
        (Some(name), Some(user)) => Ok(ApplicationCredentialId::Name(name, user)),
        (Some(_), None) => {
            Err(keys.invalid("auth.username", "is missing: a credential named by its name needs its user"))
        }
        (None, _) => Err(keys.invalid("auth.application_credential_id", "is missing")),
    }
}

fn user(keys: &Keys<'_>) -> Result<Option<User>, ConfigError> {
    if let Some(id) = keys.auth_first(&["user_id"])? {
        return Ok(Some(User::Id(id)));
    }
    let Some(name) = keys.auth_first(&["username", "user_name"])? else { return Ok(None) };
    let domain = keys.domain("user")?.ok_or_else(|| {
        keys.invalid("auth.user_domain_name", "is missing: Keystone finds a user by name only within a domain")
    })?;
    Ok(Some(User::Name(name, domain)))
}

fn scope(keys: &Keys<'_>) -> Result<Scope, ConfigError> {
    for unsupported in ["trust_id", "system_scope"] {
        if keys.auth_first(&[unsupported])?.is_some() {
            return Err(keys.invalid(&format!("auth.{unsupported}"), "is not supported: name a project"));
        }
    }
    if let Some(id) = keys.project_id()? {
        return Ok(Scope::Project(ProjectScope::Id(id)));
    }
    if let Some(name) = keys.project_name()? {
        let domain = keys.domain("project")?.ok_or_else(|| {
            keys.invalid(
                "auth.project_domain_name",
                "is missing: Keystone finds a project by name only within a domain",
            )
        })?;
        return Ok(Scope::Project(ProjectScope::Name(name, domain)));
    }
    Ok(keys.scope_domain()?.map_or(Scope::Unscoped, Scope::Domain))
}
