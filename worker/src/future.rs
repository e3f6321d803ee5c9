//! What a later version of this worker may do to a message. Only with the feature `future-progress`, for the chaos run,
//! where old and new workers share a queue.

use imagewright_common::job::Message;
use imagewright_common::wire;

/// A field of `progress` that no released version knows.
const FIELD: &str = "future";

/// The message with one more look counted in its progress, as it is put back on the queue.
pub(crate) fn marked(message: &Message, payload: Vec<u8>) -> Vec<u8> {
    let mut message = message.clone();
    let rest = &mut message.progress.get_or_insert_default().rest;
    let looks = rest.get(FIELD).and_then(serde_json::Value::as_u64).unwrap_or(0);
    rest.insert(FIELD.to_owned(), looks.saturating_add(1).into());
    wire::encode(&message).unwrap_or(payload)
}
