//! What travels beside a message: counts, in headers of our own. A republished message carries these alone; copying the
//! broker's `x-death` would make it vanish at the next dead-lettering.

use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};

use super::topology::{DELIVERY_LIMIT, short};
use crate::queue::{Burial, Counts};

const ATTEMPT: &str = "x-imagewright-attempt";
const STARTS: &str = "x-imagewright-starts";
const DETACHED: &str = "x-imagewright-detached";
const FIRST_AT: &str = "x-imagewright-first-at";
const LAST_AT: &str = "x-imagewright-last-at";
const LAST_ERROR: &str = "x-imagewright-error";
const DUE: &str = "x-imagewright-due";
const BURIAL: &str = "x-imagewright-burial";

/// Longest text put in a header, in characters; a frame must hold all headers.
const TEXT_MAX: usize = 2000;

/// Properties of a message of ours.
pub(super) fn properties(id: &str, counts: &Counts) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert(short(ATTEMPT), AMQPValue::LongUInt(counts.attempt));
    headers.insert(short(STARTS), AMQPValue::LongUInt(counts.crashes));
    if counts.detached {
        headers.insert(short(DETACHED), AMQPValue::Boolean(true));
    }
    if let Some(at) = counts.first_at {
        headers.insert(short(FIRST_AT), AMQPValue::LongLongInt(at.as_millisecond()));
    }
    if let Some(error) = &counts.last_error {
        headers.insert(short(LAST_ERROR), words(error));
    }
    BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type(short("application/json"))
        .with_message_id(short(id))
        .with_headers(headers)
}

/// The same, not before `due`.
pub(super) fn with_due(properties: BasicProperties, due: Timestamp) -> BasicProperties {
    with(properties, DUE, AMQPValue::LongLongInt(due.as_millisecond()))
}

/// The same, buried now.
pub(super) fn with_burial(properties: BasicProperties, burial: &Burial) -> BasicProperties {
    let short = |text: &String| text.chars().take(TEXT_MAX / 2).collect::<String>();
    let burial = Burial {
        reason: short(&burial.reason),
        field: burial.field.as_ref().map(short),
        error: burial.error.as_ref().map(short),
        request_id: burial.request_id.as_ref().map(short),
        worker: burial.worker.as_ref().map(short),
    };
    let text = serde_json::to_string(&burial).unwrap_or_default();
    let properties = with(properties, BURIAL, AMQPValue::LongString(LongString::from(text)));
    with(properties, LAST_AT, AMQPValue::LongLongInt(Timestamp::now().as_millisecond()))
}

fn with(properties: BasicProperties, name: &str, value: AMQPValue) -> BasicProperties {
    let mut headers = properties.headers().clone().unwrap_or_default();
    headers.insert(short(name), value);
    properties.with_headers(headers)
}

fn words(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text.chars().take(TEXT_MAX).collect::<String>()))
}

/// What the headers of a delivery say. The broker counts crashes itself, beside ours.
pub(super) fn counts(properties: &BasicProperties) -> Counts {
    let given_up = string(properties, "x-first-death-reason").is_some_and(|reason| reason == "delivery_limit");
    let by_broker = if given_up { DELIVERY_LIMIT } else { number(properties, "x-delivery-count") };
    let (crashes, now) = (number(properties, STARTS).saturating_add(by_broker), Timestamp::now());
    Counts {
        attempt: narrow(number(properties, ATTEMPT)),
        crashes: narrow(crashes),
        detached: matches!(header(properties, DETACHED), Some(AMQPValue::Boolean(true))),
        // Nobody has seen it in the future: a deadline hangs on this.
        first_at: Some(time(properties, FIRST_AT).map_or(now, |at| at.min(now))),
        last_error: string(properties, LAST_ERROR),
    }
}

pub(super) fn due(properties: &BasicProperties) -> Option<Timestamp> {
    time(properties, DUE)
}

pub(super) fn last_at(properties: &BasicProperties) -> Option<Timestamp> {
    time(properties, LAST_AT)
}

/// Why a message is dead; one that we did not bury has only the headers of whoever did.
pub(super) fn burial(properties: &BasicProperties) -> Burial {
    string(properties, BURIAL)
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_else(|| Burial { reason: "put here by another program".to_owned(), ..Burial::default() })
}

pub(super) fn message_id(properties: &BasicProperties) -> Option<String> {
    properties.message_id().as_ref().map(|id| id.as_str().to_owned()).filter(|id| !id.is_empty())
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

fn time(properties: &BasicProperties, name: &str) -> Option<Timestamp> {
    Timestamp::from_millisecond(integer(properties, name)?).ok()
}

fn string(properties: &BasicProperties, name: &str) -> Option<String> {
    let value = header(properties, name)?;
    let long = value.as_long_string().map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned());
    long.or_else(|| value.as_short_string().map(|text| text.as_str().to_owned()))
}

fn narrow(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

/// A count; what is no number counts nothing.
fn number(properties: &BasicProperties, name: &str) -> i64 {
    integer(properties, name).unwrap_or(0)
}

/// An integer header of whatever width; foreign clients choose their own.
fn integer(properties: &BasicProperties, name: &str) -> Option<i64> {
    let number = |value: &AMQPValue| {
        let signed = value.as_long_long_int().or_else(|| value.as_long_int().map(i64::from));
        let unsigned = || value.as_long_uint().map(i64::from).or_else(|| value.as_short_uint().map(i64::from));
        let short = || value.as_short_int().map(i64::from).or_else(|| value.as_short_short_uint().map(i64::from));
        signed.or_else(unsigned).or_else(short).or_else(|| value.as_short_short_int().map(i64::from))
    };
    header(properties, name).and_then(number)
}
