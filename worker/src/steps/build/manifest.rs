//! What is installed on the builder in the end, which the image is stamped with.

use super::{Build, Failure};
use crate::guest::Unreachable;

/// Where an image says which packages it has: the SHA-256 of its own `/usr/share/imagewright/packages`.
pub(super) const PACKAGES: &str = "imagewright_packages_digest";

impl Build<'_> {
    /// List the packages, once, after all that installs some. A system without such a list has no digest, and an image
    /// all the same.
    pub(super) async fn list_packages(&mut self) -> Result<Result<(), Unreachable>, Failure> {
        let said = match self.ask(include_str!("../../guest/manifest.sh")).await? {
            Ok(said) => said,
            Err(unreachable) => return Ok(Err(unreachable)),
        };
        self.state.packages = Some(digest(&said.stdout).unwrap_or_default());
        if said.code != Some(0) {
            tracing::warn!(job.id = %self.message.id, error = said.stderr.trim(), "the packages could not be listed");
        }
        Ok(Ok(()))
    }

    /// The digest, if there is one.
    pub(super) fn packages(&self) -> Option<&str> {
        self.state.packages.as_deref().filter(|digest| !digest.is_empty())
    }
}

fn digest(said: &str) -> Option<String> {
    let word = said.trim();
    (word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| word.to_owned())
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn only_a_digest_is_one() {
        assert_eq!(digest(&format!("{}\n", "ab".repeat(32))), Some("ab".repeat(32)));
        for said in ["", "\n", "sudo: a password is required", &"x".repeat(64)] {
            assert_eq!(digest(said), None);
        }
    }
}
