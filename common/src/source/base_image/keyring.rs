//! OpenPGP keys that are trusted, and whether one of them made a detached signature (RFC 9580).

#[cfg(test)]
mod tests;

use std::io::Cursor;
use std::path::Path;

use jiff::Timestamp;
use pgp::composed::{Deserializable as _, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType};
use pgp::types::{KeyDetails as _, Tag};

use super::SourceError;

/// How far the signer's clock may be ahead of ours, in seconds.
const AHEAD_MAX: i64 = 300;

/// Keys that are trusted.
pub struct Keyring {
    signers: Vec<Signer>,
}

/// A key that may sign.
struct Signer {
    fingerprint: String,
    key: Key,
    /// When it expires, in seconds since 1970.
    until: Option<i64>,
    is_revoked: bool,
}

enum Key {
    Primary(PublicKey),
    Sub(PublicSubkey),
}

/// Why a signature is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The keyring is not there or no keyring.
    #[error("keyring {path}: {reason}; install Ubuntu's package ubuntu-keyring, or name another file with --keyring")]
    Unreadable {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No OpenPGP signature is in the file.
    #[error("holds no OpenPGP signature: {0}")]
    NoSignature(String),
    /// Somebody else signed.
    #[error("signed by key {by}, which is not in the keyring (that has {has})")]
    UnknownKey {
        /// What the signature says of its maker.
        by: String,
        /// Fingerprints.
        has: String,
    },
    /// The key made no such signature for these bytes.
    #[error("bad signature: key {0} did not sign these bytes; the list or its signature was changed")]
    Bad(String),
    /// The key has expired.
    #[error("signed by key {key}, which expired at {at}; the keyring needs its renewed copy")]
    ExpiredKey {
        /// Fingerprint.
        key: String,
        /// When.
        at: Timestamp,
    },
    /// The key was revoked.
    #[error("signed by key {0}, which was revoked")]
    Revoked(String),
    /// The signature has expired, or is of the future.
    #[error("the signature of key {key} {what} {at}")]
    Time {
        /// Fingerprint.
        key: String,
        /// `expired at` or `is dated`.
        what: &'static str,
        /// When.
        at: Timestamp,
    },
    /// The digest in the signature is too weak, or it is no signature of a file.
    #[error("the signature of key {key} is {what}, which proves nothing")]
    Weak {
        /// Fingerprint.
        key: String,
        /// What it is.
        what: String,
    },
}

impl Keyring {
    /// The keys of a file.
    ///
    /// # Errors
    /// [`SourceError::Refused`], saying what to install or name.
    pub fn read(path: &Path) -> Result<Keyring, SourceError> {
        let unreadable = |reason: String| KeyringError::Unreadable { path: path.display().to_string(), reason };
        let keyring = std::fs::read(path)
            .map_err(|error| unreadable(error.to_string()))
            .and_then(|bytes| Keyring::parse(&bytes).map_err(unreadable));
        keyring.map_err(|error| SourceError::Refused { field: super::FIELD.to_owned(), reason: error.to_string() })
    }

    /// The keys in `bytes`, armoured or not; those whose own signatures are wrong are left out.
    pub(super) fn parse(bytes: &[u8]) -> Result<Keyring, String> {
        let (keys, _) = SignedPublicKey::from_reader_many(Cursor::new(bytes.to_vec())).map_err(|e| e.to_string())?;
        let signers: Vec<Signer> = keys.filter_map(Result::ok).flat_map(|key| signers(&key)).collect();
        if signers.is_empty() { Err("holds no OpenPGP key".to_owned()) } else { Ok(Keyring { signers }) }
    }

    /// The fingerprint of a trusted key that signed `data`, at the time `now`.
    ///
    /// # Errors
    /// [`KeyringError`], of the last signature by a trusted key if there are several and none is good.
    pub fn verify(&self, data: &[u8], signature: &[u8], now: Timestamp) -> Result<String, KeyringError> {
        let none = |error: pgp::errors::Error| KeyringError::NoSignature(error.to_string());
        let (found, _) = DetachedSignature::from_reader_many(Cursor::new(signature.to_vec())).map_err(none)?;
        let signatures: Vec<Signature> =
            found.collect::<Result<Vec<_>, _>>().map_err(none)?.into_iter().map(|one| one.signature).collect();
        let mut worst = None;
        for signature in &signatures {
            for signer in self.signers.iter().filter(|signer| signer.made(signature)) {
                match signer.verify(signature, data, now.as_second()) {
                    Ok(()) => return Ok(signer.fingerprint.clone()),
                    Err(error) => worst = Some(error),
                }
            }
        }
        Err(worst.unwrap_or_else(|| match signatures.first() {
            Some(signature) => KeyringError::UnknownKey { by: issuer(signature), has: self.fingerprints() },
            None => KeyringError::NoSignature("empty".to_owned()),
        }))
    }

    fn fingerprints(&self) -> String {
        self.signers.iter().map(|signer| signer.fingerprint.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// What a signature says of its maker.
fn issuer(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().first().map(|one| format!("{one:X}"));
    fingerprint
        .or_else(|| signature.issuer_key_id().first().map(|id| id.to_string().to_uppercase()))
        .unwrap_or("without id".into())
}

impl Signer {
    fn made(&self, signature: &Signature) -> bool {
        let (fingerprint, id) = match &self.key {
            Key::Primary(key) => (key.fingerprint(), key.legacy_key_id()),
            Key::Sub(key) => (key.fingerprint(), key.legacy_key_id()),
        };
        signature.issuer_fingerprint().contains(&&fingerprint) || signature.issuer_key_id().contains(&&id)
    }

    fn verify(&self, signature: &Signature, data: &[u8], now: i64) -> Result<(), KeyringError> {
        let key = || self.fingerprint.clone();
        let good = match &self.key {
            Key::Primary(key) => signature.verify(key, data),
            Key::Sub(key) => signature.verify(key, data),
        };
        good.map_err(|_| KeyringError::Bad(key()))?;
        if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
            return Err(KeyringError::Weak { key: key(), what: format!("of type {:?}", signature.typ()) });
        }
        if !signature.hash_alg().is_some_and(is_strong) {
            return Err(KeyringError::Weak { key: key(), what: format!("over {:?}", signature.hash_alg()) });
        }
        if self.is_revoked {
            return Err(KeyringError::Revoked(key()));
        }
        if let Some(until) = self.until.filter(|until| *until <= now) {
            return Err(KeyringError::ExpiredKey { key: key(), at: at(until) });
        }
        let made = signature.created().map_or(0, |time| i64::from(time.as_secs()));
        if made > now + AHEAD_MAX {
            return Err(KeyringError::Time { key: key(), what: "is dated", at: at(made) });
        }
        match lifetime(signature.signature_expiration_time()) {
            Some(seconds) if made + seconds <= now => {
                Err(KeyringError::Time { key: key(), what: "expired at", at: at(made + seconds) })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// The key itself and its subkeys that may sign, each with a binding that its owner made.
fn signers(key: &SignedPublicKey) -> Vec<Signer> {
    let primary = &key.primary_key;
    let own = |signature: &&Signature| signature.verify_key(primary).is_ok();
    let certified = key.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|one| one.verify_certification(primary, Tag::UserId, &user.id).is_ok())
    });
    let direct = key.details.direct_signatures.iter().filter(own);
    let Some(newest) = certified.chain(direct).max_by_key(|one| one.created().map_or(0, |at| at.as_secs())) else {
        return Vec::new();
    };
    let is_revoked = key.details.revocation_signatures.iter().any(|one| own(&one));
    let until = expiry(primary.created_at().as_secs(), newest);
    let first = Signer {
        fingerprint: format!("{:X}", primary.fingerprint()),
        key: Key::Primary(primary.clone()),
        until,
        is_revoked,
    };
    let subkeys = key.public_subkeys.iter().filter_map(|sub| subkey(sub, primary, until, is_revoked));
    std::iter::once(first).chain(subkeys).collect()
}

fn subkey(sub: &SignedPublicSubKey, primary: &PublicKey, until: Option<i64>, is_revoked: bool) -> Option<Signer> {
    sub.verify_bindings(primary).ok()?;
    let bound = sub.signatures.iter().filter(|one| one.typ() == Some(SignatureType::SubkeyBinding));
    let binding = bound.max_by_key(|one| one.created().map_or(0, |at| at.as_secs()))?;
    let own = expiry(sub.key.created_at().as_secs(), binding);
    let is_withdrawn = sub.signatures.iter().any(|one| one.typ() == Some(SignatureType::SubkeyRevocation));
    binding.key_flags().sign().then(|| Signer {
        fingerprint: format!("{:X}", sub.key.fingerprint()),
        key: Key::Sub(sub.key.clone()),
        until: [until, own].into_iter().flatten().min(),
        is_revoked: is_revoked || is_withdrawn,
    })
}

fn expiry(created: u32, signature: &Signature) -> Option<i64> {
    lifetime(signature.key_expiration_time()).map(|seconds| i64::from(created) + seconds)
}

/// 0 means for ever, as does absence.
fn lifetime(duration: Option<pgp::types::Duration>) -> Option<i64> {
    duration.map(|duration| i64::from(duration.as_secs())).filter(|seconds| *seconds > 0)
}

fn is_strong(hash: HashAlgorithm) -> bool {
    matches!(
        hash,
        HashAlgorithm::Sha256
            | HashAlgorithm::Sha384
            | HashAlgorithm::Sha512
            | HashAlgorithm::Sha3_256
            | HashAlgorithm::Sha3_512
    )
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}
