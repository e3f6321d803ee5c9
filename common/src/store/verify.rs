//! What the cloud stored, compared with what was meant.

use super::{StoreError, stamp};
use crate::job::Source;
use crate::openstack::{Glance, Image};
use crate::source::{Digests, HashAlgo};

/// What the stored bytes must be.
pub(super) struct Expected {
    length: u64,
    sha512: Option<String>,
    sha256: Option<String>,
}

impl Expected {
    pub(super) fn of(length: u64, digests: Digests) -> Expected {
        Expected { length, sha512: Some(digests.sha512), sha256: digests.sha256 }
    }

    pub(super) fn one(length: u64, algorithm: HashAlgo, digest: String) -> Expected {
        match algorithm {
            HashAlgo::Sha512 => Expected { length, sha512: Some(digest), sha256: None },
            HashAlgo::Sha256 => Expected { length, sha512: None, sha256: Some(digest) },
        }
    }

    pub(super) fn digest(&self, algorithm: HashAlgo) -> Option<&str> {
        match algorithm {
            HashAlgo::Sha512 => self.sha512.as_deref(),
            HashAlgo::Sha256 => self.sha256.as_deref(),
        }
    }
}

/// The algorithm that this cloud hashes with.
pub(super) fn algorithm(image: &Image) -> Result<HashAlgo, StoreError> {
    match image.os_hash_algo.as_deref() {
        Some("sha512") => Ok(HashAlgo::Sha512),
        Some("sha256") => Ok(HashAlgo::Sha256),
        other => Err(StoreError::Rejected {
            field: "spec.cloud",
            reason: format!(
                "the cloud tells no digest that can be compared (os_hash_algo is {}); set hashing_algorithm = sha512 in Glance",
                other.unwrap_or("absent")
            ),
        }),
    }
}

/// Compare size and digest; what differs is told.
pub(super) fn compare(image: &Image, expected: &Expected) -> Result<(), String> {
    if image.size != Some(expected.length) {
        return Err(format!("stored {} bytes instead of {}", image.size.unwrap_or(0), expected.length));
    }
    let algorithm = algorithm(image).map_err(|error| error.to_string())?;
    let digest = expected.digest(algorithm);
    if digest.is_none() || digest != image.os_hash_value.as_deref() {
        return Err("the stored bytes have another digest than what was sent".to_owned());
    }
    Ok(())
}

/// Say on the image that its bytes are right, and which download they are.
pub(super) async fn stamp(glance: &Glance, image: &Image, source: &Source) -> Result<Image, StoreError> {
    let digest = image.os_hash_value.as_deref().unwrap_or_default();
    let mut properties = vec![(stamp::VERIFIED, digest)];
    if let Source::Url { sha256, .. } = source {
        properties.push((stamp::SOURCE, sha256));
    }
    Ok(glance.set_properties(&image.id, &properties).await?)
}
