//! What workers need to have in common to build together: the seed from which the keys of every build are derived, and
//! the secrets that scripts may be given.

mod releases;

use std::fs;
use std::io::{ErrorKind, Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context as _, bail};
use clap::Args;
use hmac::{Hmac, KeyInit as _, Mac as _};
use imagewright_common::arch::Arch;
use imagewright_common::job::SecretName;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};
use tempfile::{NamedTempFile, PersistError};
use url::Url;
use uuid::Uuid;

use crate::content::Content;
use releases::Releases;

/// Bytes of a seed that is made here.
const SEED_LENGTH: usize = 32;

/// The longest secret, in bytes.
const SECRET_MAX: usize = 32 * 1024;

/// See the module.
pub(crate) struct Builders {
    file: PathBuf,
    /// Read, or made, with the first build.
    seed: OnceLock<SecretSlice<u8>>,
    secrets: Option<PathBuf>,
    /// What every image gets.
    pub(crate) content: Content,
    pub(crate) places: Places,
    pub(crate) releases: Releases,
}

/// Where builds find what they download; a site that cannot reach the world has mirrors.
#[derive(Clone, Debug, Args)]
pub(crate) struct Places {
    /// What GitHub's API says of releases of the runner agent: beneath it, `/latest` and `/tags/vX.Y.Z`. By default that of
    /// actions/runner, and of canonical/github-actions-runner for s390x and ppc64le.
    #[arg(long, env = "IMAGEWRIGHT_RUNNER_RELEASES", value_name = "URL")]
    pub(crate) runner_releases: Option<Url>,
    /// Where builders fetch the archives of the runner agent, as `vX.Y.Z/FILE`; from GitHub by default.
    #[arg(long, env = "IMAGEWRIGHT_RUNNER_MIRROR", value_name = "URL")]
    pub(crate) runner_mirror: Option<Url>,
    /// Takes the place of Ubuntu's package servers on builders.
    #[arg(long, env = "IMAGEWRIGHT_APT_MIRROR", value_name = "URL")]
    pub(crate) apt_mirror: Option<Url>,
    /// A Snap Store Proxy for builders.
    #[arg(long, env = "IMAGEWRIGHT_SNAP_PROXY", value_name = "URL")]
    pub(crate) snap_proxy: Option<Url>,
}

/// GitHub's own builds of the runner agent, and Canonical's of the same source for architectures that it has none for.
const RELEASES: &str = "https://api.github.com/repos/actions/runner/releases";
const RELEASES_ELSEWHERE: &str = "https://api.github.com/repos/canonical/github-actions-runner/releases";

impl Places {
    /// Where releases of the runner agent for an architecture are described.
    pub(crate) fn releases(&self, arch: Arch) -> Result<Url, url::ParseError> {
        let releases = match arch {
            Arch::Amd64 | Arch::Arm64 | Arch::Armhf => RELEASES,
            Arch::S390x | Arch::Ppc64le => RELEASES_ELSEWHERE,
        };
        self.runner_releases.clone().map_or_else(|| Url::parse(releases), Ok)
    }
}

/// The key pairs of one build.
pub(crate) struct Keys {
    /// Who logs in.
    pub(crate) user: KeyPair,
    /// The builder itself.
    pub(crate) host: KeyPair,
}

/// An Ed25519 key pair in the formats of OpenSSH.
pub(crate) struct KeyPair {
    pub(crate) private: SecretString,
    pub(crate) public: String,
}

impl Builders {
    /// The seed in `file`, and secrets from the files in `secrets`.
    pub(crate) fn new(file: PathBuf, secrets: Option<PathBuf>, content: Content, places: Places) -> Builders {
        Builders { file, seed: OnceLock::new(), secrets, content, places, releases: Releases::default() }
    }

    fn seed(&self) -> anyhow::Result<&[u8]> {
        if self.seed.get().is_none() {
            let seed = read_or_make(&self.file).with_context(|| format!("--build-key-file {}", self.file.display()))?;
            // Another thread may have read the same.
            drop(self.seed.set(seed.into()));
        }
        Ok(self.seed.get().map(ExposeSecret::expose_secret).unwrap_or_default())
    }

    /// The keys of a build: the same on every worker with the same seed.
    pub(crate) fn keys(&self, job: Uuid, run: u32) -> anyhow::Result<Keys> {
        Ok(Keys { user: self.pair("user", job, run)?, host: self.pair("host", job, run)? })
    }

    fn pair(&self, who: &str, job: Uuid, run: u32) -> anyhow::Result<KeyPair> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.seed()?)?;
        mac.update(format!("imagewright build key\0{who}\0{job}\0{run}").as_bytes());
        let pair = Ed25519Keypair::from_seed(&mac.finalize().into_bytes().into());
        let key = PrivateKey::new(KeypairData::Ed25519(pair), "imagewright")?;
        Ok(KeyPair {
            private: SecretString::from(key.to_openssh(LineEnding::LF)?.to_string()),
            public: key.public_key().to_openssh()?,
        })
    }

    /// The secret of this name.
    pub(crate) fn secret(&self, name: &SecretName) -> anyhow::Result<SecretString> {
        let Some(folder) = &self.secrets else { bail!("this worker has no --secrets-dir") };
        let path = folder.join(name.as_str());
        let text = read_private(&path).with_context(|| path.display().to_string())?;
        let text = String::from_utf8(text).ok().with_context(|| format!("{} is not UTF-8", path.display()))?;
        Ok(SecretString::from(text.strip_suffix('\n').unwrap_or(&text).to_owned()))
    }
}

/// The bytes of a file that not everybody may read.
fn read_private(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o007 != 0 {
        bail!("everybody may use it (mode {:o}): chmod 640", mode & 0o777);
    }
    let mut bytes = Vec::new();
    Read::take(&mut file, SECRET_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > SECRET_MAX {
        bail!("it is longer than {SECRET_MAX} bytes");
    }
    Ok(bytes)
}

/// The seed, whole at any moment that somebody else may look: builds begin at once, and workers of one machine too.
fn read_or_make(path: &Path) -> anyhow::Result<Vec<u8>> {
    if let Some(seed) = read_seed(path)? {
        return Ok(seed);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut seed = [0; SEED_LENGTH];
    fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(&seed)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Ok(_) => Ok(seed.to_vec()),
        Err(PersistError { error, .. }) if error.kind() == ErrorKind::AlreadyExists => {
            read_seed(path)?.context("it is made and removed again and again")
        }
        Err(error) => Err(error.into()),
    }
}

fn read_seed(path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
    if !path.try_exists()? {
        return Ok(None);
    }
    let seed = read_private(path)?;
    if seed.len() < SEED_LENGTH {
        bail!("it holds {} bytes: {SEED_LENGTH} random ones at least", seed.len());
    }
    Ok(Some(seed))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    fn private(path: &Path, bytes: &[u8]) {
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn builders(seed: &Path, secrets: Option<PathBuf>) -> Builders {
        let places = Places { runner_releases: None, runner_mirror: None, apt_mirror: None, snap_proxy: None };
        Builders::new(seed.to_owned(), secrets, Content::built_in(), places)
    }

    #[test]
    fn releases_come_from_who_builds_for_the_architecture() {
        let mut places = Places { runner_releases: None, runner_mirror: None, apt_mirror: None, snap_proxy: None };
        let owner = |places: &Places, arch| places.releases(arch).unwrap().path().split('/').nth(2).unwrap().to_owned();
        assert_eq!(owner(&places, Arch::Armhf), "actions");
        assert_eq!(owner(&places, Arch::S390x), "canonical");
        places.runner_releases = Some("https://mirror.example.org/r/site".parse().unwrap());
        assert_eq!(owner(&places, Arch::S390x), "site");
    }

    #[test]
    fn workers_with_one_seed_have_the_same_keys_and_builds_have_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let seed = folder.path().join("new/seed");
        let (one, other) = (builders(&seed, None), builders(&seed, None));
        let job = Uuid::from_u128(7);
        let public = |builders: &Builders, job, run| builders.keys(job, run).unwrap().user.public;
        assert_eq!(public(&one, job, 0), public(&other, job, 0));
        assert_ne!(public(&one, job, 0), public(&one, job, 1));
        assert_ne!(public(&one, job, 0), public(&one, Uuid::from_u128(8), 0));
        assert_ne!(one.keys(job, 0).unwrap().host.public, public(&one, job, 0));
        assert_eq!(fs::metadata(&seed).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_seed_that_many_need_at_once_is_made_once() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let seed = folder.path().join("seed");
            let begin = Barrier::new(8);
            let read = || {
                begin.wait();
                read_or_make(&seed).unwrap()
            };
            let seeds: Vec<_> = thread::scope(|scope| {
                let readers: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
                readers.into_iter().map(|reader| reader.join().unwrap()).collect()
            });
            assert!(seeds.iter().all(|one| *one == fs::read(&seed).unwrap()));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_seed_or_a_secret_that_everybody_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let seed = folder.path().join("seed");
        private(&seed, &[1; SEED_LENGTH]);
        private(&folder.path().join("TOKEN"), b"s3cret\n");
        let with_secrets = builders(&seed, Some(folder.path().to_owned()));
        let name: SecretName = "TOKEN".parse().unwrap();
        assert_eq!(with_secrets.secret(&name).unwrap().expose_secret(), "s3cret");
        for file in ["seed", "TOKEN"] {
            fs::set_permissions(folder.path().join(file), fs::Permissions::from_mode(0o644)).unwrap();
        }
        assert!(format!("{:#}", with_secrets.secret(&name).unwrap_err()).contains("chmod"));
        assert!(
            format!("{:#}", builders(&seed, None).keys(Uuid::nil(), 0).err().unwrap()).contains("--build-key-file")
        );
        assert!(with_secrets.secret(&"OTHER".parse().unwrap()).is_err());
    }
}
