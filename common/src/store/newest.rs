//! The newest image of every name and architecture on a cloud, for those who watch how old it is.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{revision, stamp};
use crate::arch::Arch;
use crate::openstack::{CloudError, Glance, ImageQuery, ImageStatus};

/// When the newest verified image that `namespace` made was created, by Glance's clock, for each name and architecture.
/// Newest is what [`revision::order`] puts last.
///
/// # Errors
/// Any error of the listing: half a list is no list.
pub async fn newest(glance: &Glance, namespace: &str) -> Result<BTreeMap<(String, Arch), Timestamp>, CloudError> {
    let owner = glance.session().project_id().await?;
    let query = |hidden| ImageQuery {
        owner: Some(owner.clone()),
        status: Some(ImageStatus::Active),
        property: vec![(stamp::NAMESPACE.to_owned(), namespace.to_owned())],
        hidden,
        ..ImageQuery::default()
    };
    let mut images = glance.list(&query(false)).await?.value;
    images.extend(glance.list(&query(true)).await?.value);
    images.retain(stamp::is_verified);
    images.sort_by_key(revision::order);
    let seen = images.into_iter().filter_map(|image| {
        let arch = stamp::arch(&image)?;
        Some(((image.name?, arch), image.created_at))
    });
    // Of several with one key, the last stays.
    Ok(seen.collect())
}
