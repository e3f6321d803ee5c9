//! Looking up the keys of one cloud in the orders in which openstacksdk does.

use secrecy::SecretString;
use url::Url;

use super::ConfigError;
use super::types::{Domain, Interface};
use crate::yaml::{Node, Nodes};

/// Dashes in keys count as underscores, at every level.
pub(super) fn normalized(nodes: &Nodes) -> Nodes {
    nodes
        .iter()
        .map(|(key, node)| {
            let node = match node {
                Node::Map(map) => Node::Map(normalized(map)),
                Node::Null | Node::Bool(_) | Node::Text(_) | Node::List(_) => node.clone(),
            };
            (key.replace('-', "_"), node)
        })
        .collect()
}

/// The merged keys of one cloud, and the two orders in which openstacksdk looks for a value.
pub(super) struct Keys<'a> {
    cloud: &'a str,
    pub(super) map: Nodes,
    auth: Nodes,
}

impl<'a> Keys<'a> {
    pub(super) fn new(cloud: &'a str, mut map: Nodes) -> Keys<'a> {
        let auth = match map.remove("auth") {
            Some(Node::Map(auth)) => auth,
            Some(Node::Null | Node::Bool(_) | Node::Text(_) | Node::List(_)) | None => Nodes::new(),
        };
        Keys { cloud, map, auth }
    }

    pub(super) fn invalid(&self, key: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::Invalid { cloud: self.cloud.to_owned(), key: key.to_owned(), problem: problem.into() }
    }

    fn value(&self, map: &Nodes, prefix: &str, key: &str) -> Result<Option<String>, ConfigError> {
        match map.get(key) {
            Some(Node::Text(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(Node::Null) | None => Ok(None),
            Some(Node::Bool(_)) => {
                Err(self.invalid(&format!("{prefix}{key}"), "is read as true or false: put it in quotes"))
            }
            Some(Node::List(_) | Node::Map(_)) => Err(self.invalid(&format!("{prefix}{key}"), "is not a single value")),
        }
    }

    /// A value beside `auth`.
    pub(super) fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.value(&self.map, "", key)
    }

    /// The first of these keys in `auth`, else beside it.
    pub(super) fn auth_first(&self, keys: &[&str]) -> Result<Option<String>, ConfigError> {
        for key in keys {
            if let Some(value) = self.value(&self.auth, "auth.", key)? {
                return Ok(Some(value));
            }
        }
        for key in keys {
            if let Some(value) = self.text(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The last of these keys; each beside `auth` wins over the same one in it, because the command line and
    /// the environment put it there.
    pub(super) fn top_first<K: AsRef<str>>(&self, keys: &[K]) -> Result<Option<String>, ConfigError> {
        for key in keys.iter().rev().map(AsRef::as_ref) {
            if let Some(value) = self.text(key)? {
                return Ok(Some(value));
            }
            if let Some(value) = self.value(&self.auth, "auth.", key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    pub(super) fn secret(&self, key: &str, names: &[&str]) -> Result<SecretString, ConfigError> {
        let value = self.auth_first(names)?.map(SecretString::from);
        value.ok_or_else(|| self.invalid(&format!("auth.{key}"), "is missing (it may stand in secure.yaml)"))
    }

    pub(super) fn project_id(&self) -> Result<Option<String>, ConfigError> {
        self.top_first(&["tenant_id", "project_id"])
    }

    pub(super) fn project_name(&self) -> Result<Option<String>, ConfigError> {
        self.top_first(&["tenant_name", "project_name"])
    }

    /// The domain of the user or the project. Within a project scope `domain_*` stands for both, and
    /// `default_domain_*` is the last resort. Any id beats any name.
    pub(super) fn domain(&self, whose: &str) -> Result<Option<Domain>, ConfigError> {
        let scoped = self.project_id()?.is_some() || self.project_name()?.is_some();
        let own = format!("{whose}_domain");
        match scoped {
            true => self.first_domain(&["default_domain", "domain", &own]),
            false => self.first_domain(&["default_domain", &own]),
        }
    }

    /// The domain that a token is for.
    pub(super) fn scope_domain(&self) -> Result<Option<Domain>, ConfigError> {
        self.first_domain(&["domain"])
    }

    fn first_domain(&self, prefixes: &[&str]) -> Result<Option<Domain>, ConfigError> {
        let keys = |end: &str| prefixes.iter().map(|prefix| format!("{prefix}_{end}")).collect::<Vec<_>>();
        if let Some(id) = self.top_first(&keys("id"))? {
            return Ok(Some(Domain::Id(id)));
        }
        Ok(self.top_first(&keys("name"))?.map(Domain::Name))
    }

    pub(super) fn interface(&self, prefix: &str) -> Result<Option<Interface>, ConfigError> {
        let (older, key) = (format!("{prefix}endpoint_type"), format!("{prefix}interface"));
        let Some(text) = self.text(&older)?.or(self.text(&key)?) else { return Ok(None) };
        match Interface::parse(&text) {
            Some(interface) => Ok(Some(interface)),
            None => Err(self.invalid(&key, "is not public, internal or admin")),
        }
    }

    /// An http(s) address, with `{region_name}` and the like filled in.
    pub(super) fn url(&self, key: &str, text: &str) -> Result<Url, ConfigError> {
        let mut filled = text.to_owned();
        for (name, node) in &self.map {
            if let Node::Text(value) = node {
                filled = filled.replace(&format!("{{{name}}}"), value);
            }
        }
        match Url::parse(&filled) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
            Ok(_) | Err(_) => Err(self.invalid(key, "is not an http or https address")),
        }
    }
}
