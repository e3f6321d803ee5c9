//! The `base-image` job: find what upstream has, and if the cloud lacks it, go on as an upload.

use std::sync::Arc;

use imagewright_common::job::{BaseImageSpec, Message, Origin, Source, UploadSpec};
use imagewright_common::source::url;
use imagewright_common::store::{Observer, StoreError, revision, stamp};
use serde_json::{Map, Value, json};

use super::{Tools, upload};
use crate::verdict::{Ended, Failure, Sort};

/// What is to be uploaded, and who vouches for it.
struct Wanted {
    spec: UploadSpec,
    sha256: String,
    signed_by: Option<String>,
}

pub(super) async fn advance(tools: &Tools, message: &Message, spec: &BaseImageSpec, observer: &Arc<Observer>) -> Ended {
    observer.enter("find upstream");
    let wanted = find(tools, spec).await;
    observer.leave();
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return upload::refused_again(tools, message, error.into()).await,
    };
    match newest(tools, message, &wanted).await {
        Ok(Some(image)) => up_to_date(tools, message, &wanted, &image).await,
        Ok(None) => told(upload::advance(tools, message, &wanted.spec, observer).await, &wanted),
        Err(error) => Ended::Failed(error.into()),
    }
}

async fn find(tools: &Tools, spec: &BaseImageSpec) -> Result<Wanted, StoreError> {
    let (url, sha256, signed_by) = match &spec.origin {
        Origin::Download { url, sha256 } => (url.clone(), sha256.clone(), None),
        Origin::Mirror(mirror) => {
            let found = tools.sources.base_image(spec.base, spec.arch, mirror.as_ref()).await?;
            (found.url, found.sha256, Some(found.signed_by))
        }
    };
    Ok(Wanted { spec: spec.upload(Source::Url { url, sha256: sha256.clone() }), sha256, signed_by })
}

/// The newest revision on the cloud, if another job made it of the same bytes.
async fn newest(tools: &Tools, message: &Message, wanted: &Wanted) -> Result<Option<String>, StoreError> {
    let glance = tools.pool.glance(&wanted.spec.cloud).await?;
    let images = revision::owned(&glance, &wanted.spec.name).await?.value;
    let newest = revision::newest_verified(&images, wanted.spec.arch);
    let same = newest.filter(|image| {
        stamp::get(image, stamp::SOURCE) == Some(wanted.sha256.as_str()) && stamp::job(image) != Some(message.id)
    });
    Ok(same.map(|image| image.id.clone()))
}

async fn up_to_date(tools: &Tools, message: &Message, wanted: &Wanted, image: &str) -> Ended {
    upload::abandon(tools, message, &wanted.spec).await;
    let result = json!({ "image_id": image, "up_to_date": true, "children": [] });
    told(Ended::Succeeded { result, children: Vec::new() }, wanted)
}

/// Say what was fetched; and when upstream changed between the list and the image, look again.
fn told(ended: Ended, wanted: &Wanted) -> Ended {
    match ended {
        Ended::Succeeded { result: Value::Object(mut result), children } => {
            result.extend(facts(wanted));
            Ended::Succeeded { result: Value::Object(result), children }
        }
        Ended::Failed(failure) if wanted.signed_by.is_some() && is_other_bytes(&failure) => {
            Ended::Failed(Failure { sort: Sort::Transient { after: None }, ..failure })
        }
        Ended::Succeeded { .. }
        | Ended::Failed(_)
        | Ended::Wait { .. }
        | Ended::Next { .. }
        | Ended::TakenOver
        | Ended::Before(_) => ended,
    }
}

fn facts(wanted: &Wanted) -> Map<String, Value> {
    let signed_by = wanted.signed_by.iter().map(|key| ("signed_by".to_owned(), json!(key)));
    [("source_sha256".to_owned(), json!(wanted.sha256))].into_iter().chain(signed_by).collect()
}

fn is_other_bytes(failure: &Failure) -> bool {
    matches!(&failure.sort, Sort::Rejected { field: Some(field) } if field == url::DIGEST_FIELD)
}

/// The upload as far as it is known without asking upstream: enough to look at it and to take it back.
pub(super) fn unresolved(spec: &BaseImageSpec) -> UploadSpec {
    spec.upload(Source::File(String::new()))
}
