//! Processor architectures: one table maps our words to those of Glance, of runners and of Ubuntu.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A processor architecture that images are kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86.
    Amd64,
    /// 64-bit Arm.
    Arm64,
    /// IBM Z.
    S390x,
    /// 64-bit POWER, little endian.
    Ppc64le,
    /// 32-bit hard-float Arm, run on a 64-bit Arm host.
    Armhf,
}

/// What one architecture is called elsewhere.
struct Names {
    arch: Arch,
    name: &'static str,
    aliases: &'static [&'static str],
    /// Glance's `architecture` property (values of the metadata definition `CIM::ProcessorAllocationSetting`).
    glance: &'static str,
    /// Labels of the GitHub Actions runner.
    runner: &'static str,
    /// Suffix of Ubuntu cloud images.
    ubuntu: &'static str,
}

/// armhf has no Glance word of its own: such a guest boots on an `aarch64` machine, and its base is Ubuntu's arm64
/// image with the armhf libraries added.
const TABLE: [Names; 5] = [
    Names {
        arch: Arch::Amd64,
        name: "amd64",
        aliases: &["x86_64", "x64"],
        glance: "x86_64",
        runner: "x64",
        ubuntu: "amd64",
    },
    Names {
        arch: Arch::Arm64,
        name: "arm64",
        aliases: &["aarch64"],
        glance: "aarch64",
        runner: "arm64",
        ubuntu: "arm64",
    },
    Names { arch: Arch::S390x, name: "s390x", aliases: &[], glance: "s390x", runner: "s390x", ubuntu: "s390x" },
    Names {
        arch: Arch::Ppc64le,
        name: "ppc64le",
        aliases: &["ppc64el"],
        glance: "ppc64le",
        runner: "ppc64le",
        ubuntu: "ppc64el",
    },
    Names {
        arch: Arch::Armhf,
        name: "armhf",
        aliases: &["arm", "armv7l"],
        glance: "aarch64",
        runner: "arm",
        ubuntu: "arm64",
    },
];

/// A word that names no architecture we know.
#[derive(Debug, thiserror::Error)]
#[error("unknown architecture {given:?}: use one of {}", Arch::ALL.map(Arch::as_str).join(", "))]
pub struct UnknownArch {
    given: String,
}

impl Arch {
    /// Every architecture, in the order of the table.
    pub const ALL: [Arch; 5] = [Arch::Amd64, Arch::Arm64, Arch::S390x, Arch::Ppc64le, Arch::Armhf];

    fn names(self) -> &'static Names {
        match self {
            Arch::Amd64 => &TABLE[0],
            Arch::Arm64 => &TABLE[1],
            Arch::S390x => &TABLE[2],
            Arch::Ppc64le => &TABLE[3],
            Arch::Armhf => &TABLE[4],
        }
    }

    /// Our own word, used in messages, lanes and on the command line.
    pub fn as_str(self) -> &'static str {
        self.names().name
    }

    /// The value of Glance's `architecture` property.
    pub fn glance(self) -> &'static str {
        self.names().glance
    }

    /// The label that GitHub runners carry.
    pub fn runner(self) -> &'static str {
        self.names().runner
    }

    /// The word in the names of Ubuntu cloud images.
    pub fn ubuntu(self) -> &'static str {
        self.names().ubuntu
    }

    /// The architecture an unstamped image of this Glance word belongs to. armhf shares its word with arm64, so only a
    /// stamp can tell it.
    pub fn from_glance(word: &str) -> Option<Arch> {
        TABLE.iter().find(|row| row.glance == word).map(|row| row.arch)
    }

    fn words() -> impl Iterator<Item = &'static str> {
        TABLE.iter().flat_map(|row| std::iter::once(row.name).chain(row.aliases.iter().copied()))
    }
}

impl FromStr for Arch {
    type Err = UnknownArch;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        TABLE
            .iter()
            .find(|row| row.name == word || row.aliases.contains(&word))
            .map(|row| row.arch)
            .ok_or_else(|| UnknownArch { given: word.chars().take(40).collect() })
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Arch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Arch {
    fn schema_name() -> Cow<'static, str> {
        "Arch".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "enum": Arch::words().collect::<Vec<_>>(),
            "description": "Processor architecture; the aliases mean the same as the word they follow."
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_stands_at_its_own_place() {
        for (row, arch) in TABLE.iter().zip(Arch::ALL) {
            assert_eq!(row.arch, arch);
            assert_eq!(row.name.parse::<Arch>().unwrap(), arch);
            for alias in row.aliases {
                assert_eq!(alias.parse::<Arch>().unwrap(), arch);
            }
        }
    }

    #[test]
    fn an_unknown_word_is_told_the_known_ones() {
        let error = "sparc9".parse::<Arch>().unwrap_err().to_string();
        assert!(error.contains("sparc9") && error.contains("ppc64le"), "{error}");
    }
}
