//! Files beneath the worker's file roots: opened once, without a way out, and used by that descriptor.

#[cfg(test)]
mod tests;

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::SourceError;

/// The field of a job that names a file.
pub const FIELD: &str = "spec.source.file";

/// How often an open is repeated that lost a race with a rename (openat2(2): EAGAIN).
const RACES_MAX: usize = 8;

/// The directories that jobs may name files in.
#[derive(Clone, Debug, Default)]
pub struct FileRoots {
    roots: Vec<Root>,
}

/// One directory: as the operator spelled it, and open.
#[derive(Clone, Debug)]
struct Root {
    path: PathBuf,
    directory: Arc<OwnedFd>,
}

/// A directory that cannot be a file root. For the operator, at start.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It is not there, no directory, or not readable.
    #[error("--file-root {path}: {error}")]
    Open {
        /// As given.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Without openat2 nothing keeps a path beneath its root.
    #[error("--file-root needs openat2, which this kernel or its seccomp filter refuses ({0}); Linux 5.6 has it")]
    Kernel(io::Error),
}

impl FileRoots {
    /// Open every directory of `--file-root`. A symlink here is the operator's own and is followed, once.
    ///
    /// # Errors
    /// [`RootError`], for the first that cannot be used.
    pub fn open_all<P: AsRef<Path>>(directories: &[P]) -> Result<FileRoots, RootError> {
        let roots = directories.iter().map(|path| Root::open(path.as_ref())).collect::<Result<_, _>>()?;
        Ok(FileRoots { roots })
    }

    /// Open the regular file at `path`, an absolute path beneath one of the roots as they were given. Blocks on slow
    /// storage.
    ///
    /// # Errors
    /// [`SourceError::Refused`] naming `spec.source.file` when it is not beneath a root, leads out of it, is missing,
    /// unreadable, or no regular file; [`SourceError::Transient`] when the storage fails.
    pub fn open(&self, path: &str) -> Result<FileSource, SourceError> {
        let beneath = self.roots.iter().filter_map(|root| {
            let rest = Path::new(path).strip_prefix(&root.path).ok()?;
            (!rest.as_os_str().is_empty()).then_some((root, rest))
        });
        let Some((root, rest)) = beneath.max_by_key(|(root, _)| root.path.components().count()) else {
            return Err(refused("it is not beneath a --file-root of this worker; move it there, or use a url"));
        };
        FileSource::open(root.clone(), rest)
    }
}

impl Root {
    fn open(path: &Path) -> Result<Root, RootError> {
        let failed = |error: io::Error| RootError::Open { path: path.to_owned(), error };
        let absolute = std::path::absolute(path).map_err(failed)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&absolute, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let root = Root { path: absolute, directory: Arc::new(directory) };
        root.look(Path::new("."), flags).map_err(|errno| match errno {
            Errno::NOSYS | Errno::PERM | Errno::TOOBIG => RootError::Kernel(errno.into()),
            errno => failed(errno.into()),
        })?;
        Ok(root)
    }

    /// Open what lies at `path` beneath this root; the kernel refuses every way out of it.
    fn look(&self, path: &Path, flags: OFlags) -> Result<File, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let attempt = || openat2(&self.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        let mut opened = attempt();
        for _ in 1..RACES_MAX {
            if opened.as_ref().err() != Some(&Errno::AGAIN) {
                break;
            }
            opened = attempt();
        }
        opened.map(File::from)
    }
}

/// What tells one content of a file from another, taken by fstat. `ctime` moves with every write and cannot be set
/// back; it moves with a chmod and a new hard link as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds, nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Identity {
    fn from(data: &Metadata) -> Identity {
        Identity {
            device: data.dev(),
            inode: data.ino(),
            size: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

/// An open regular file and what it was when it was opened. Clones share the descriptor.
#[derive(Clone, Debug)]
pub struct FileSource(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    file: File,
    identity: Identity,
    root: Root,
    beneath: PathBuf,
}

impl FileSource {
    fn open(root: Root, beneath: &Path) -> Result<FileSource, SourceError> {
        // Looked at before it is opened: opening a device can already do something.
        let glance = root.look(beneath, OFlags::PATH).map_err(judge)?;
        regular(&glance)?;
        let file = root.look(beneath, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY).map_err(judge)?;
        let identity = regular(&file)?;
        Ok(FileSource(Arc::new(Opened { file, identity, root, beneath: beneath.to_owned() })))
    }

    /// What the file was when it was opened.
    pub fn identity(&self) -> Identity {
        self.0.identity
    }

    /// Size in bytes when it was opened.
    pub fn length(&self) -> u64 {
        self.0.identity.size
    }

    /// Whether the descriptor still is what it was, and the path still leads to it. Blocks on slow storage.
    ///
    /// # Errors
    /// [`SourceError::Changed`] saying what moved, [`SourceError::Transient`] when the storage fails.
    pub fn unchanged(&self) -> Result<(), SourceError> {
        let (was, is) = (self.0.identity, Identity::from(&self.0.file.metadata().map_err(broken)?));
        if is.size != was.size {
            return Err(changed(&format!("its size went from {} to {} bytes", was.size, is.size)));
        }
        let there =
            self.0.root.look(&self.0.beneath, OFlags::PATH).map_err(|_| changed("its path leads nowhere now"))?;
        let there = Identity::from(&there.metadata().map_err(broken)?);
        if (there.device, there.inode) != (was.device, was.inode) {
            return Err(changed("another file was put in its place"));
        }
        if is != was { Err(changed("it was written to (mtime or ctime moved)")) } else { Ok(()) }
    }

    /// Fill as much of `buffer` as the file has from `offset` on; how many bytes that were.
    ///
    /// # Errors
    /// [`SourceError::Transient`] when the storage fails.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, SourceError> {
        let mut filled = 0usize;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let at = offset.saturating_add(u64::try_from(filled).unwrap_or(u64::MAX));
            match self.0.file.read_at(rest, at) {
                Ok(0) => break,
                Ok(size) => filled += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(error)),
            }
        }
        Ok(filled)
    }

    /// Tell the kernel that the file is read from end to end. Only a hint.
    pub(super) fn read_ahead(&self) {
        let hint = rustix::fs::fadvise(&self.0.file, 0, None, rustix::fs::Advice::Sequential);
        if let Err(errno) = hint {
            tracing::debug!(%errno, "no read-ahead");
        }
    }
}

fn regular(file: &File) -> Result<Identity, SourceError> {
    let data = file.metadata().map_err(broken)?;
    if data.is_file() { Ok(Identity::from(&data)) } else { Err(refused("it is no regular file")) }
}

/// What a failed open means. A name that is not there is wrong in the job; a storage that fails is not.
fn judge(errno: Errno) -> SourceError {
    match errno {
        Errno::NOENT | Errno::NOTDIR => refused("there is no such file; every worker of the lane must see it"),
        Errno::XDEV | Errno::LOOP => refused("it leads out of its --file-root, through a symlink or '..'"),
        Errno::ACCESS | Errno::PERM => refused("this worker may not read it"),
        Errno::NXIO | Errno::NODEV | Errno::ISDIR => refused("it is no regular file"),
        Errno::INVAL | Errno::NAMETOOLONG => refused("it is no path"),
        Errno::NOSYS => refused("this kernel has no openat2 (Linux 5.6), so no path can be kept beneath its root"),
        errno => broken(errno.into()),
    }
}

fn refused(reason: &str) -> SourceError {
    SourceError::Refused { field: FIELD.to_owned(), reason: reason.to_owned() }
}

fn changed(reason: &str) -> SourceError {
    SourceError::Changed { reason: format!("the file changed: {reason}") }
}

fn broken(error: io::Error) -> SourceError {
    SourceError::Transient { reason: format!("the file cannot be read: {error}"), retry_after: None }
}
