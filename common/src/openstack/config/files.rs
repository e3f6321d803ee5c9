//! Where the files are, which of them is read, and how two of them are merged.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ConfigError;
use crate::yaml::{self, Node, Nodes};

/// A file that was found and read.
pub(super) struct File {
    pub(super) path: PathBuf,
    pub(super) content: Nodes,
}

/// The user's home directory.
pub(super) fn home(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    env("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// The folders that are searched, in the order of openstacksdk: working directory, XDG, `~/.config`, the XDG
/// folder of the system, `/etc/openstack`.
pub(super) fn places(env: &dyn Fn(&str) -> Option<String>, cwd: &Path) -> Vec<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.trim().is_empty());
    let home = home(env);
    let mut places = vec![cwd.to_owned()];
    if let Some(xdg) = set("XDG_CONFIG_HOME") {
        places.push(Path::new(&xdg).join("openstack"));
    } else if let Some(home) = &home {
        places.push(home.join(".config/openstack"));
    }
    // In a snap HOME is not where the user keeps clouds.yaml.
    if let Some(real) = set("SNAP_REAL_HOME").map(PathBuf::from).or(home) {
        places.push(real.join(".config/openstack"));
    }
    let system = set("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".to_owned());
    places.extend(system.split(':').map(|folder| Path::new(folder).join("openstack")));
    places.push(PathBuf::from("/etc/openstack"));
    places
}

/// Reads the first file of this name that is there and that we may read. What was passed over is noted.
pub(super) fn first(
    places: &[PathBuf],
    stem: &str,
    chosen: Option<String>,
    cwd: &Path,
    notes: &mut String,
) -> Result<Option<File>, ConfigError> {
    let usual =
        places.iter().flat_map(|place| ["yaml", "yml", "json"].map(|suffix| place.join(format!("{stem}.{suffix}"))));
    let chosen = chosen.filter(|path| !path.is_empty()).map(|path| cwd.join(path));
    for path in chosen.iter().cloned().chain(usual) {
        match std::fs::read_to_string(&path) {
            Ok(text) => return content(path, &text),
            Err(error) if error.kind() == ErrorKind::NotFound && chosen.as_ref() != Some(&path) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                notes.push_str(&format!("; {} was passed over: {error}", path.display()));
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(source) => return Err(ConfigError::Read { path, source }),
        }
    }
    Ok(None)
}

fn content(path: PathBuf, text: &str) -> Result<Option<File>, ConfigError> {
    match yaml::nodes(text) {
        Ok(Node::Map(content)) => Ok(Some(File { path, content })),
        Ok(Node::Null) => Ok(Some(File { path, content: Nodes::new() })),
        Ok(Node::Bool(_) | Node::Text(_) | Node::List(_)) => {
            Err(ConfigError::Shape { path, problem: "is not a mapping".to_owned() })
        }
        Err(source) => Err(ConfigError::Syntax { path, source }),
    }
}

/// Lays `over` on `base`, mapping by mapping, to any depth.
pub(super) fn merge(base: &mut Nodes, over: Nodes) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Node::Map(base)), Node::Map(over)) => merge(base, over),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Lays the keys of `over` on `base`; of the mappings in it only `auth` is merged, the others are replaced.
pub(super) fn layer(base: &mut Nodes, over: &Nodes) {
    for (key, value) in over {
        match (base.get_mut(key), value) {
            (Some(Node::Map(auth)), Node::Map(over)) if key == "auth" => {
                auth.extend(over.iter().map(|(key, value)| (key.clone(), value.clone())));
            }
            (_, value) => {
                base.insert(key.clone(), value.clone());
            }
        }
    }
}
