//! Digests: hashed in a thread of their own beside the transfer, and once per file content and process.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt::Write;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{Context, SHA256, SHA512};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::file::Identity;

/// How many chunks may wait to be hashed. Together with the size of a chunk this bounds memory.
const WAITING_MAX: usize = 2;

/// How many digests are remembered; the oldest is forgotten first.
const REMEMBERED_MAX: usize = 1024;

/// A digest that clouds and messages use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashAlgo {
    /// What a url comes with; some Glances are set to it.
    Sha256,
    /// Glance's `os_hash_value` by default.
    Sha512,
}

/// What is known about the bytes after they have gone by. Lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Always known.
    pub sha512: String,
    /// Known if it was asked for or told.
    pub sha256: Option<String>,
}

/// What a hash thread found; only what it was asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub(super) sha256: Option<String>,
    pub(super) sha512: Option<String>,
}

impl Sums {
    pub(super) fn of(&self, algo: HashAlgo) -> Option<&String> {
        match algo {
            HashAlgo::Sha256 => self.sha256.as_ref(),
            HashAlgo::Sha512 => self.sha512.as_ref(),
        }
    }
}

/// What is fed to a hash thread. Without [`Feed::End`] nothing comes out of it.
pub(super) enum Feed {
    Chunk(Bytes),
    End,
}

/// A running hash thread. It ends when `feed` is dropped.
pub(super) struct Hasher {
    pub(super) feed: mpsc::Sender<Feed>,
    pub(super) sums: oneshot::Receiver<Sums>,
}

impl Hasher {
    /// Hash what is fed with each of `algos`; `claim` is fulfilled with the digest of its algorithm.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(algos: &[HashAlgo], claim: Option<Guard>) -> io::Result<Hasher> {
        let (feed, fed) = mpsc::channel(WAITING_MAX);
        let (tell, sums) = oneshot::channel();
        let sha256 = algos.contains(&HashAlgo::Sha256).then(|| Context::new(&SHA256));
        let sha512 = algos.contains(&HashAlgo::Sha512).then(|| Context::new(&SHA512));
        std::thread::Builder::new().name("image-hash".to_owned()).spawn(move || {
            let Some(sums) = hash(fed, sha256, sha512) else { return };
            if let Some(claim) = claim {
                claim.fulfil(&sums);
            }
            // Nobody waits when the transfer was given up.
            tell.send(sums).ok();
        })?;
        Ok(Hasher { feed, sums })
    }
}

/// `None` when the feed stops before its end.
fn hash(mut fed: mpsc::Receiver<Feed>, mut sha256: Option<Context>, mut sha512: Option<Context>) -> Option<Sums> {
    loop {
        match fed.blocking_recv()? {
            Feed::Chunk(chunk) => {
                if let Some(hasher) = &mut sha256 {
                    hasher.update(&chunk);
                }
                if let Some(hasher) = &mut sha512 {
                    hasher.update(&chunk);
                }
            }
            Feed::End => {
                let told = |hasher: Context| hex(hasher.finish().as_ref());
                return Some(Sums { sha256: sha256.map(told), sha512: sha512.map(told) });
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// One content of one file, and one way to hash it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What the file was when it was opened.
    pub identity: Identity,
    /// With what it is hashed.
    pub algo: HashAlgo,
}

/// The digests of files, shared by all transfers of a process. Clones are the same cache.
#[derive(Clone, Default)]
pub struct DigestCache(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    slots: HashMap<Key, Slot>,
    /// Number of the next slot, so that one that was replaced is told from its successor.
    next: u64,
}

struct Slot {
    number: u64,
    digest: watch::Receiver<Option<String>>,
}

/// What a transfer does about a digest.
pub enum Claim {
    /// It is known.
    Known(String),
    /// Nobody computes it: this one does.
    Compute(Guard),
    /// Somebody computes it.
    Wait(Waiter),
}

impl DigestCache {
    /// Ask for a digest, or take on the work. A [`Guard`] that is dropped unfulfilled sets the waiters free.
    pub fn claim(&self, key: Key) -> Claim {
        let mut inner = self.lock();
        if let Some(slot) = inner.slots.get(&key) {
            let known = slot.digest.borrow().clone();
            if let Some(digest) = known {
                return Claim::Known(digest);
            }
            return Claim::Wait(Waiter { number: slot.number, digest: slot.digest.clone() });
        }
        Claim::Compute(self.slot(&mut inner, key))
    }

    /// Take the work from whoever `waiter` waits for, who is too slow. `None` when somebody else already has.
    pub fn take_over(&self, key: Key, waiter: &Waiter) -> Option<Guard> {
        let mut inner = self.lock();
        let same = inner.slots.get(&key).is_some_and(|slot| slot.number == waiter.number);
        same.then(|| self.slot(&mut inner, key))
    }

    /// Forget what is known, for a digest that a cloud contradicts.
    pub fn forget(&self, key: Key) {
        self.lock().slots.remove(&key);
    }

    fn slot(&self, inner: &mut Inner, key: Key) -> Guard {
        if inner.slots.len() >= REMEMBERED_MAX {
            let known = inner.slots.iter().filter(|(_, slot)| slot.digest.borrow().is_some());
            let oldest = known.min_by_key(|(_, slot)| slot.number).map(|(key, _)| *key);
            oldest.map(|key| inner.slots.remove(&key));
        }
        let number = inner.next;
        inner.next += 1;
        let (tell, digest) = watch::channel(None);
        inner.slots.insert(key, Slot { number, digest });
        Guard { cache: self.clone(), key, number, tell }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held, so a poisoned lock still guards a whole map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The duty to compute a digest.
pub struct Guard {
    cache: DigestCache,
    key: Key,
    number: u64,
    tell: watch::Sender<Option<String>>,
}

impl Guard {
    /// Tell everybody who waits, now and later.
    pub fn tell(self, digest: &str) {
        self.tell.send_replace(Some(digest.to_owned()));
    }

    fn fulfil(self, sums: &Sums) {
        if let Some(digest) = sums.of(self.key.algo).cloned() {
            self.tell(&digest);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.tell.borrow().is_none() {
            let mut inner = self.cache.lock();
            if inner.slots.get(&self.key).is_some_and(|slot| slot.number == self.number) {
                inner.slots.remove(&self.key);
            }
        }
    }
}

/// Somebody else's digest to be.
pub struct Waiter {
    number: u64,
    digest: watch::Receiver<Option<String>>,
}

impl Waiter {
    /// The digest, or `None` when whoever computed it gave up: then claim again.
    pub async fn wait(&mut self) -> Option<String> {
        let known = self.digest.wait_for(Option::is_some).await;
        known.ok().and_then(|digest| digest.clone())
    }
}
