//! The files of the content: built in, and of the site.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use imagewright_common::arch::Arch;
use imagewright_common::job::Release;

use super::ContentError;

/// The largest folder of content that is read, in bytes.
const SIZE_MAX: u64 = 1024 * 1024;

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../content/", $name)))),*]
    };
}

const BUILT_IN: [(&str, &str); 16] = built_in![
    "05-proxy.sh",
    "10-apt.sh",
    "20-packages.sh",
    "30-armhf.sh",
    "40-users.sh",
    "50-services.sh",
    "60-kernel.sh",
    "70-runner.sh",
    "80-snaps.sh",
    "90-facts.sh",
    "95-clean.sh",
    "default.packages",
    "default.services",
    "default.snaps",
    "default.sysctl",
    "default.users",
];

/// What a file lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum List {
    Packages,
    Snaps,
    Services,
    Sysctl,
    Users,
}

/// Scripts and lists, by name.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    files: BTreeMap<String, String>,
}

impl Content {
    /// What this program brings.
    pub(crate) fn built_in() -> Content {
        Content { files: BUILT_IN.map(|(name, text)| (name.to_owned(), text.to_owned())).into() }
    }

    /// The same with the files of a folder: those of a known name take its place, others are added. An empty one takes
    /// away. Hidden files are passed over.
    ///
    /// # Errors
    /// The first file that is no content.
    pub(crate) fn with_folder(mut self, folder: &Path) -> Result<Content, ContentError> {
        let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
        let mut total = 0;
        for entry in entries {
            let path = entry.map_err(|error| unreadable(folder, &error))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with('.') {
                continue;
            }
            if !is_script(&name) && list_of(&name).is_none() {
                return Err(ContentError::Name(path.display().to_string()));
            }
            total += fs::metadata(&path).map_err(|error| unreadable(&path, &error))?.len();
            if total > SIZE_MAX {
                return Err(unreadable(&path, &format!("the folder has more than {SIZE_MAX} bytes")));
            }
            let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
            if let Some(wrong) = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
                return Err(unreadable(
                    &path,
                    &format!("holds the control character {wrong:?}; it must be plain text"),
                ));
            }
            self.files.insert(name, text);
        }
        Ok(self)
    }

    /// The scripts in the order in which they run.
    pub(super) fn scripts(&self) -> impl Iterator<Item = (&str, &str)> {
        let scripts = self.files.iter().filter(|(name, text)| is_script(name) && !text.trim().is_empty());
        scripts.map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// The lines of every list of a kind that hold for an architecture and a release, each once.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub(super) fn lines(&self, list: List, arch: Arch, release: Option<Release>) -> Result<Vec<String>, ContentError> {
        let mut found: Vec<String> = Vec::new();
        for (name, text) in self.files.iter().filter(|(name, _)| list_of(name) == Some(list)) {
            for (number, line) in text.lines().enumerate() {
                let wrong = |reason| ContentError::Line { file: name.clone(), line: number + 1, reason };
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let (word, places) = places(line).map_err(wrong)?;
                check(list, word).map_err(wrong)?;
                if holds(&places, arch, release).map_err(wrong)? && found.iter().all(|one| one != word) {
                    found.push(word.to_owned());
                }
            }
        }
        Ok(found)
    }

    /// The three largest files with their sizes.
    pub(super) fn largest(&self) -> String {
        let mut files: Vec<(&String, usize)> = self.files.iter().map(|(name, text)| (name, text.len())).collect();
        files.sort_by_key(|(_, size)| Reverse(*size));
        files.iter().take(3).map(|(name, size)| format!("{name} ({size} bytes)")).collect::<Vec<_>>().join(", ")
    }
}

fn unreadable(path: &Path, reason: &dyn std::fmt::Display) -> ContentError {
    ContentError::Unreadable { path: path.display().to_string(), reason: reason.to_string() }
}

/// Two digits, a hyphen, a name, `.sh`.
fn is_script(name: &str) -> bool {
    let stem = name.strip_suffix(".sh").unwrap_or_default();
    let (number, rest) = stem.split_once('-').unwrap_or_default();
    number.len() == 2 && number.bytes().all(|digit| digit.is_ascii_digit()) && is_plain(rest)
}

fn list_of(name: &str) -> Option<List> {
    let (stem, extension) = name.rsplit_once('.')?;
    let list = match extension {
        "packages" => List::Packages,
        "snaps" => List::Snaps,
        "services" => List::Services,
        "sysctl" => List::Sysctl,
        "users" => List::Users,
        _ => return None,
    };
    is_plain(stem).then_some(list)
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// A line without its brackets, and the words in them.
fn places(line: &str) -> Result<(&str, Vec<&str>), String> {
    let Some((word, rest)) = line.split_once('[') else { return Ok((line, Vec::new())) };
    let inside = rest.strip_suffix(']').ok_or("the bracket does not close at the end of the line")?;
    Ok((word.trim(), inside.split_whitespace().collect()))
}

/// Whether a line holds: none of its `!` words may fit, and of the architectures and of the releases that it names, one
/// each must.
fn holds(places: &[&str], arch: Arch, release: Option<Release>) -> Result<bool, String> {
    let (mut archs, mut releases) = (None, None);
    let mut is_excluded = false;
    for place in places {
        let (word, is_not) = place.strip_prefix('!').map_or((*place, false), |word| (word, true));
        let (group, fits) = match (word.parse::<Arch>(), word.parse::<Release>()) {
            (Ok(named), _) => (&mut archs, named == arch),
            (Err(_), Ok(named)) => (&mut releases, Some(named) == release),
            (Err(_), Err(_)) => return Err(format!("{word:?} is no architecture and no release")),
        };
        if is_not {
            is_excluded |= fits;
        } else {
            *group = Some(group.unwrap_or(false) || fits);
        }
    }
    Ok(!is_excluded && archs.unwrap_or(true) && releases.unwrap_or(true))
}

/// What goes to a shell is words that no shell and no tool reads as something else.
fn check(list: List, word: &str) -> Result<(), String> {
    let plain = |text: &str, more: &str| {
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        first && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    let (fits, form) = match list {
        List::Packages => (plain(word, "+.:-=~"), "a package, as in jq, or libc6:armhf"),
        List::Services => (plain(word, "@._:-"), "a unit, as in apt-daily.timer"),
        List::Users => (plain(word, "_-"), "the name of a user"),
        List::Snaps => {
            let fits = word.split_once('=').is_some_and(|(name, channel)| plain(name, "-") && plain(channel, "/.:-"));
            (fits, "NAME=CHANNEL, as in yq=latest/stable")
        }
        List::Sysctl => {
            let fits = word.split_once('=').is_some_and(|(key, value)| plain(key, "._/-") && plain(value, " ._/-"));
            (fits, "KEY=VALUE, as in vm.swappiness=10")
        }
    };
    if fits { Ok(()) } else { Err(format!("{word:?} is not {form}")) }
}
