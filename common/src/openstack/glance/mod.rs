//! Glance, the Image service, API v2 (API reference: "Image Service API v2"): only the calls we use.

mod image;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use url::Url;

use super::error::{CloudError, CloudErrorKind, Place};
use super::http::Answer;
use super::session::{Call, Session};
pub use image::{Image, ImageQuery, ImageStatus, NewImage};

/// Glance gives no more than this at once, whatever is asked.
const PAGE: &str = "1000";
/// 100 000 images of one name and owner are not a list but a mistake.
const PAGES_MAX: usize = 100;
const PATCH_TYPE: &str = "application/openstack-images-v2.1-json-patch";

/// A value and what the cloud's clock showed when it was so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed<T> {
    /// What was there.
    pub value: T,
    /// The `Date` of the answer; where a server sends none (uWSGI alone), Keystone's clock. Never ours.
    pub server_time: Timestamp,
}

/// What became of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// We deleted it.
    Deleted,
    /// It was not there.
    AlreadyGone,
}

/// The bytes of an image as they arrive.
pub type ImageData = BoxStream<'static, Result<Bytes, CloudError>>;

/// The Image service of one cloud.
#[derive(Clone, Debug)]
pub struct Glance {
    session: Session,
}

#[derive(Deserialize)]
struct Page {
    images: Vec<Map<String, Value>>,
    next: Option<String>,
}

impl Glance {
    /// The Image service of this cloud; sends nothing.
    pub fn new(session: Session) -> Glance {
        Glance { session }
    }

    /// The cloud it belongs to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// `POST /v2/images`: makes a `queued` image without data. An id that exists, or ever existed, is an error
    /// of kind `Conflict`.
    pub async fn create(&self, image: &NewImage) -> Result<Image, CloudError> {
        let url = self.url(&[], &[]).await?;
        parse(&self.session.call(&Call::json(Method::POST, url, &image.to_json())).await?)
    }

    /// `GET /v2/images/{id}`. One that is not there is an error of kind `NotFound`.
    pub async fn get(&self, id: &str) -> Result<Observed<Image>, CloudError> {
        let answer = self.session.call(&get(self.image_url(id, "GET", &[]).await?)).await?;
        let server_time = self.session.server_time(&answer).await?;
        Ok(Observed { value: parse(&answer)?, server_time })
    }

    /// `GET /v2/images`, all pages, newest first. The server filters and we filter again, for it may match a
    /// name regardless of case. The time is that of the first page.
    pub async fn list(&self, query: &ImageQuery) -> Result<Observed<Vec<Image>>, CloudError> {
        let mut url = self.url(&[], &[]).await?;
        for (key, value) in query.filters() {
            url.query_pairs_mut().append_pair(key, &value);
        }
        url.query_pairs_mut().append_pair("sort", "created_at:desc,id:desc").append_pair("limit", PAGE);
        let mut images = Vec::new();
        let mut seen = HashSet::new();
        let mut server_time = None;
        while seen.len() < PAGES_MAX {
            let answer = self.session.call(&get(url.clone())).await?;
            if server_time.is_none() {
                server_time = Some(self.session.server_time(&answer).await?);
            }
            let page: Page = answer.json()?;
            for image in page.images {
                let image = Image::parse(image).map_err(|problem| answer.protocol(problem))?;
                if query.matches(&image) {
                    images.push(image);
                }
            }
            match (page.next, server_time) {
                (None, Some(server_time)) => return Ok(Observed { value: images, server_time }),
                (next, _) => {
                    let next = next.unwrap_or_default();
                    // Its path lacks whatever a proxy has put before it, so only the query is taken.
                    url.set_query(next.split_once('?').map(|(_, query)| query));
                    if !seen.insert(next) {
                        return Err(answer.protocol("the list of images repeats its pages"));
                    }
                }
            }
        }
        let place = Place { cloud: self.session.cloud().to_owned(), operation: format!("GET {}", url.path()) };
        Err(place.error(CloudErrorKind::Protocol, "the list of images does not end"))
    }

    /// `PATCH /v2/images/{id}`: adds properties or replaces their values.
    pub async fn set_properties(&self, id: &str, set: &[(&str, &str)]) -> Result<Image, CloudError> {
        let patch: Vec<Value> = set
            .iter()
            .map(|(name, value)| {
                let path = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
                json!({ "op": "add", "path": path, "value": value })
            })
            .collect();
        let call = Call {
            method: Method::PATCH,
            url: self.image_url(id, "PATCH", &[]).await?,
            body: Some((PATCH_TYPE, Value::Array(patch).to_string().into())),
            repeatable: true,
            version: None,
        };
        parse(&self.session.call(&call).await?)
    }

    /// `DELETE /v2/images/{id}`. Protected, or not ours: `Forbidden`; in use by its store: `Conflict`. Of two deletions
    /// at once Glance answers one with 400 ("from deleted to deleted is not allowed"), and shows the image as `deleted`
    /// for a moment: then the image is looked for.
    pub async fn delete(&self, id: &str) -> Result<Deletion, CloudError> {
        let url = self.image_url(id, "DELETE", &[]).await?;
        match self.session.call(&Call::plain(Method::DELETE, url)).await {
            Ok(_) => Ok(Deletion::Deleted),
            Err(error) if matches!(error.kind, CloudErrorKind::NotFound | CloudErrorKind::Gone) => {
                Ok(Deletion::AlreadyGone)
            }
            Err(error) if error.kind == CloudErrorKind::Rejected => match self.get(id).await {
                Err(gone) if gone.kind == CloudErrorKind::NotFound => Ok(Deletion::AlreadyGone),
                Ok(seen) if seen.value.status == ImageStatus::Deleted => Ok(Deletion::AlreadyGone),
                Ok(_) | Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// `PUT /v2/images/{id}/file`: sends the data of a `queued` image, exactly `length` bytes, on a connection
    /// of its own. There is no limit in time: the caller watches its body for a stall.
    ///
    /// After an error the state of the image is not known: a reset may hide an answer, and an answer of 409,
    /// 410 or 500 may be that of a race. Ask for the image and go by its status.
    pub async fn upload(&self, id: &str, length: u64, body: reqwest::Body) -> Result<(), CloudError> {
        let url = self.image_url(id, "PUT", &["file"]).await?;
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
            (CONTENT_LENGTH, HeaderValue::from(length)),
        ];
        self.session.upload(url, &headers, body).await
    }

    /// `GET /v2/images/{id}/file`: the length in bytes and the data. An image without data is an error of kind
    /// `Conflict`. A connection that breaks is an error in the stream, never a short stream.
    pub async fn download(&self, id: &str) -> Result<(u64, ImageData), CloudError> {
        let url = self.image_url(id, "GET", &["file"]).await?;
        let (response, place) = self.session.download(&url).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Err(place.error(CloudErrorKind::Conflict, "the image has no data yet"));
        }
        let length = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let Some(length) = length else {
            return Err(place.error(CloudErrorKind::Protocol, "the answer has no Content-Length"));
        };
        let data = response.bytes_stream().map(move |chunk| chunk.map_err(|error| place.transport(&error)));
        Ok((length, data.boxed()))
    }

    async fn image_url(&self, id: &str, method: &str, more: &[&str]) -> Result<Url, CloudError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if id.is_empty() || id.len() > 255 || !id.chars().all(plain) {
            let place = Place { cloud: self.session.cloud().to_owned(), operation: format!("{method} /v2/images/...") };
            return Err(place.error(CloudErrorKind::Rejected, "this is not an image id; list the images to find it"));
        }
        self.url(&[id], more).await
    }

    /// An address beneath `/v2/images`, whether or not the endpoint names a version itself.
    async fn url(&self, id: &[&str], more: &[&str]) -> Result<Url, CloudError> {
        let mut url = self.session.endpoint("image").await?;
        let path = url.path().trim_end_matches('/').to_owned();
        let root = match path.rsplit_once('/') {
            Some((root, version)) if matches!(version, "v1" | "v2") || version.starts_with("v2.") => root,
            Some(_) | None => &path,
        };
        let segments = ["v2", "images"].iter().chain(id).chain(more);
        url.set_path(&segments.fold(root.to_owned(), |path, segment| format!("{path}/{segment}")));
        url.set_query(None);
        Ok(url)
    }
}

fn get(url: Url) -> Call {
    Call::plain(Method::GET, url)
}

fn parse(answer: &Answer) -> Result<Image, CloudError> {
    Image::parse(answer.json()?).map_err(|problem| answer.protocol(problem))
}

#[cfg(test)]
mod tests;
