//! A build that would make the image once more that is there already: nothing is built, and it goes where it is missing.

use std::time::Duration;

use imagewright_common::job::{CloudName, Kind};
use imagewright_common::openstack::Image;
use imagewright_common::store::{revision, stamp};
use serde_json::json;

use super::{Build, Failure, Next, Sort};
use crate::steps::failure::cloud;
use crate::verdict::Ended;

/// Where an image says what it was made of.
pub(super) const INPUTS: &str = "imagewright_inputs";

impl Build<'_> {
    /// The newest image, if it was made of the same.
    pub(super) async fn unchanged(&self, inputs: &str) -> Result<Option<Image>, Failure> {
        if self.spec.force {
            return Ok(None);
        }
        let owned = revision::owned(&self.glance, &self.spec.name).await.map_err(cloud)?.value;
        let newest = revision::newest_verified(&owned, self.spec.arch);
        Ok(newest.filter(|image| stamp::get(image, INPUTS) == Some(inputs)).cloned())
    }

    /// Send it to the clouds that lack it. One that cannot be looked at holds up no other: those get it first.
    pub(super) async fn spread(&mut self, image: &Image) -> Result<Ended, Failure> {
        let destinations: Vec<CloudName> = self.destinations().cloned().collect();
        let (mut missing, mut failures) = (Vec::new(), Vec::new());
        for name in destinations {
            if self.state.children.contains(&self.message.child_id(Kind::Upload, &name)) {
                continue;
            }
            match self.lacks(&name, image).await {
                Ok(true) => missing.push(name),
                Ok(false) => {}
                Err(failure) => failures.push(of_destination(failure, &name)),
            }
        }
        let children = self.copies(&image.id, &missing);
        self.state.children.extend(children.iter().map(|child| child.id));
        match failures.into_iter().min_by_key(hopelessness) {
            Some(failure) if children.is_empty() => Err(failure),
            Some(failure) => {
                // So that it is this image that goes everywhere, whatever is newest then.
                self.state.image = Some(image.id.clone());
                Next { after: Duration::ZERO, why: failure.error, children }.with(self.message, &self.state)
            }
            None => {
                let result = json!({
                    "image_id": image.id, "unchanged": true, "children": self.state.children,
                    "why": "base, content, script and versions are those of the newest image; --force builds all the same",
                });
                Ok(Ended::Succeeded { result, children })
            }
        }
    }

    async fn lacks(&self, name: &CloudName, image: &Image) -> Result<bool, Failure> {
        let glance = self.tools.pool.glance(name).await?;
        let there = revision::owned(&glance, &self.spec.name).await.map_err(cloud)?.value;
        Ok(!revision::newest_verified(&there, self.spec.arch).is_some_and(|newest| is_copy(newest, image)))
    }
}

/// Whether it holds the same bytes. Where the two clouds hash otherwise the digests tell nothing: then it is as long, and
/// was asked for with the image or after it.
fn is_copy(there: &Image, image: &Image) -> bool {
    if there.os_hash_algo == image.os_hash_algo {
        return there.os_hash_value == image.os_hash_value;
    }
    let is_as_new = stamp::asked_at(there).zip(stamp::asked_at(image)).is_some_and(|(there, image)| there >= image);
    there.size == image.size && is_as_new
}

fn of_destination(failure: Failure, name: &CloudName) -> Failure {
    let sort = match failure.sort {
        Sort::UnknownCloud { .. } => Sort::UnknownCloud { field: FIELD },
        Sort::Rejected { .. } => Sort::Rejected { field: Some(FIELD.to_owned()) },
        sort @ (Sort::Transient { .. } | Sort::Busy { .. }) => sort,
    };
    Failure { sort, error: format!("{FIELD}: {name}: {}", failure.error), ..failure }
}

/// The field that names the destinations.
const FIELD: &str = "spec.upload_to";

/// What may pass comes first: it is what the build goes on for.
fn hopelessness(failure: &Failure) -> u8 {
    match failure.sort {
        Sort::Transient { .. } => 0,
        Sort::Busy { .. } => 1,
        Sort::UnknownCloud { .. } => 2,
        Sort::Rejected { .. } => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::super::choose::tests::image;
    use super::*;

    fn of(id: &str, algo: &str, digest: &str, size: u64, asked_at: &str) -> Image {
        let image = image(id, "p", 1, &[(stamp::SELF, id), (stamp::ASKED_AT, asked_at)]);
        let (os_hash_algo, os_hash_value) = (Some(algo.to_owned()), Some(digest.to_owned()));
        Image { os_hash_algo, os_hash_value, size: Some(size), ..image }
    }

    #[test]
    fn a_copy_has_the_digest_or_where_that_is_of_another_kind_the_size_and_no_older_wish() {
        let (before, at, after) = ("2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z", "2026-11-24T10:00:00Z");
        let image = of("one", "sha512", "aa", 7, at);
        assert!(is_copy(&of("two", "sha512", "aa", 7, before), &image));
        assert!(!is_copy(&of("two", "sha512", "bb", 7, after), &image));
        assert!(is_copy(&of("two", "sha256", "bb", 7, at), &image));
        assert!(is_copy(&of("two", "sha256", "bb", 7, after), &image));
        assert!(!is_copy(&of("two", "sha256", "bb", 7, before), &image));
        assert!(!is_copy(&of("two", "sha256", "bb", 8, at), &image));
    }

    #[test]
    fn what_may_pass_decides_how_the_build_goes_on() {
        let failure = |sort| of_destination(Failure::plain(sort, "away"), &"edge".parse().unwrap());
        let unknown = failure(Sort::UnknownCloud { field: "spec.cloud" });
        assert_eq!(unknown.sort, Sort::UnknownCloud { field: FIELD });
        let refused = failure(Sort::Rejected { field: None });
        let passing = failure(Sort::Transient { after: None });
        assert_eq!(passing.error, "spec.upload_to: edge: away");
        assert_eq!([refused, unknown, passing.clone()].into_iter().min_by_key(hopelessness), Some(passing));
    }
}
