//! Which clouds there are and how to log in to them, read as openstacksdk reads them: `clouds.yaml` from the
//! usual places, `secure.yaml` merged over it, profiles of `clouds-public.yaml` beneath it, and one cloud
//! made of `OS_*` variables. The tests hold this against openstacksdk itself.
//!
//! Deliberately different: a file that is not valid YAML is an error here (openstacksdk skips it), the
//! profiles bundled with openstacksdk are not here, and a missing domain is said before Keystone is asked.

mod environment;
mod files;
mod keys;
mod resolve;
mod types;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::yaml::{Node, Nodes, YamlError};
use files::File;
pub use types::{
    ApplicationCredentialId, Auth, CloudConfig, Domain, Interface, ProjectScope, Scope, ServiceConfig, User,
};

/// Why the clouds, or one of them, cannot be used. The text never holds a value from a file, only names.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No cloud of this name is known.
    #[error("cloud {name} is not known: {}{notes}", known_clouds(known, read))]
    UnknownCloud {
        /// The name that was asked for.
        name: String,
        /// All names that are known, sorted.
        known: Vec<String>,
        /// The files that were read.
        read: Vec<PathBuf>,
        /// What else the user should know, such as a file that could not be read; starts with "; ".
        notes: String,
    },
    /// A file is there but cannot be read as text.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason of the operating system.
        source: std::io::Error,
    },
    /// A file is not YAML or JSON.
    #[error("cannot read {}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: YamlError,
    },
    /// A file is YAML, but not a mapping where openstacksdk wants one.
    #[error("{}: {problem}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A key of one cloud is missing or has an impossible value.
    #[error("cloud {cloud}: {key} {problem}")]
    Invalid {
        /// The cloud.
        cloud: String,
        /// The key, as it is written in `clouds.yaml`.
        key: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The cloud made of `OS_*` variables would hide one of a file.
    #[error("a file and the OS_* variables both define cloud {0}: rename it in the file, or set OS_CLOUD_NAME")]
    Clash(String),
}

fn known_clouds(known: &[String], read: &[PathBuf]) -> String {
    if read.is_empty() && known.is_empty() {
        return "no clouds.yaml was found in ., ~/.config/openstack or /etc/openstack \
                (or set OS_CLIENT_CONFIG_FILE)"
            .to_owned();
    }
    let files: Vec<String> = read.iter().map(|path| path.display().to_string()).collect();
    let files = if files.is_empty() { "the OS_* variables".to_owned() } else { files.join(" and ") };
    match known {
        [] => format!("{files} names no cloud"),
        known => format!("{files} has {}", known.join(", ")),
    }
}

/// All clouds of `clouds.yaml`, `secure.yaml`, `clouds-public.yaml` and the environment, merged.
///
/// `Debug` shows the names alone.
pub struct Clouds {
    clouds: Nodes,
    profiles: Nodes,
    environment: String,
    home: Option<PathBuf>,
    read: Vec<PathBuf>,
    notes: String,
}

impl fmt::Debug for Clouds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Clouds").field("names", &self.names()).field("read", &self.read).finish()
    }
}

impl Clouds {
    /// Reads the clouds of this process: its environment, working directory and files.
    ///
    /// No file at all is no error; [`Clouds::get`] says it.
    pub fn load() -> Result<Clouds, ConfigError> {
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        Clouds::load_from(&|name| std::env::var(name).ok(), &cwd)
    }

    /// Reads the clouds with this environment and working directory.
    pub fn load_from(env: &dyn Fn(&str) -> Option<String>, cwd: &Path) -> Result<Clouds, ConfigError> {
        let places = files::places(env, cwd);
        let mut notes = String::new();
        let main = files::first(&places, "clouds", env("OS_CLIENT_CONFIG_FILE"), cwd, &mut notes)?;
        let secure = files::first(&places, "secure", env("OS_CLIENT_SECURE_FILE"), cwd, &mut notes)?;
        let public = files::first(&places, "clouds-public", None, cwd, &mut notes)?;

        let read = main.iter().chain(&secure).map(|file| file.path.clone()).collect();
        let mut clouds = main.map_or_else(|| Ok(Nodes::new()), |file| section(file, "clouds"))?;
        if let Some(secure) = secure {
            files::merge(&mut clouds, section(secure, "clouds")?);
        }
        let environment = env("OS_CLOUD_NAME").filter(|name| !name.is_empty()).unwrap_or_else(|| "envvars".to_owned());
        if let Some(cloud) = environment::cloud(env)
            && clouds.insert(environment.clone(), Node::Map(cloud)).is_some()
        {
            return Err(ConfigError::Clash(environment));
        }
        let profiles = public.map_or_else(|| Ok(Nodes::new()), |file| section(file, "public-clouds"))?;
        Ok(Clouds { clouds, profiles, environment, home: files::home(env), read, notes })
    }

    /// The names of all clouds, sorted.
    pub fn names(&self) -> Vec<String> {
        self.clouds.keys().cloned().collect()
    }

    /// How to use the cloud of this name: profile, own values and the first region, merged and checked.
    pub fn get(&self, name: &str) -> Result<CloudConfig, ConfigError> {
        match self.clouds.get(name) {
            Some(Node::Map(cloud)) => {
                let profile = resolve::profile_name(name, cloud)?.filter(|profile| *profile != self.environment);
                let known = profile.as_ref().and_then(|profile| match self.profiles.get(profile) {
                    Some(Node::Map(known)) => Some(known),
                    Some(Node::Null | Node::Bool(_) | Node::Text(_) | Node::List(_)) | None => None,
                });
                resolve::cloud(name, cloud, profile.as_deref(), known, self.home.as_deref())
            }
            Some(Node::Null | Node::Bool(_) | Node::Text(_) | Node::List(_)) => Err(ConfigError::Invalid {
                cloud: name.to_owned(),
                key: "entry".to_owned(),
                problem: "is not a mapping".to_owned(),
            }),
            None => Err(ConfigError::UnknownCloud {
                name: name.to_owned(),
                known: self.names(),
                read: self.read.clone(),
                notes: self.notes.clone(),
            }),
        }
    }
}

/// One top-level section of a file; without it the file names nothing, as in openstacksdk.
fn section(mut file: File, key: &str) -> Result<Nodes, ConfigError> {
    match file.content.remove(key) {
        Some(Node::Map(section)) => Ok(section),
        Some(Node::Null) | None => Ok(Nodes::new()),
        Some(Node::Bool(_) | Node::Text(_) | Node::List(_)) => {
            Err(ConfigError::Shape { path: file.path, problem: format!("`{key}` is not a mapping") })
        }
    }
}

#[cfg(test)]
mod tests;
