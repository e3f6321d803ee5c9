//! Sessions and errors against a fake cloud on a real socket.

mod errors;
mod login;

use serde_json::json;

use super::testing::Reply;
use super::{CloudError, Glance, ImageQuery, Session};

fn no_images() -> Reply {
    Reply::json(200, &json!({ "images": [] })).with("date", "Wed, 01 Jan 2030 00:00:07 GMT")
}

async fn list(session: &Session) -> Result<usize, CloudError> {
    Glance::new(session.clone()).list(&ImageQuery::default()).await.map(|list| list.value.len())
}
