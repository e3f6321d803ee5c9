//! What a cloud says in the body of an error, made fit for a log line: the message out of the JSON, the text
//! out of the HTML, no secrets, no control characters, at most 500 characters.

use serde_json::Value;

const LENGTH_MAX: usize = 500;
/// Shorter strings are too likely to be part of an ordinary word.
const SECRET_LENGTH_MIN: usize = 4;

/// The message in an error body. `secrets` are blotted out wherever they stand.
pub(super) fn from_body(body: &[u8], secrets: &[&str]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(json) => from_json(&json, 3).unwrap_or_default(),
        Err(_) => from_html(&String::from_utf8_lossy(body)),
    };
    let mut text = text;
    for secret in secrets.iter().filter(|secret| secret.len() >= SECRET_LENGTH_MIN) {
        text = text.replace(secret, "[redacted]");
    }
    bounded(&text)
}

/// Collapses white space and control characters, hides what must not be shown and cuts.
pub(super) fn bounded(text: &str) -> String {
    let mut short = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !short.is_empty() {
            short.push(' ');
        }
        short.push_str(&without_secrets(word));
    }
    if short.chars().count() > LENGTH_MAX {
        short = short.chars().take(LENGTH_MAX - 3).chain("...".chars()).collect();
    }
    short
}

/// Keystone tokens (fernet and JWS), and the query and user of an address.
fn without_secrets(word: &str) -> String {
    for token in ["gAAAA", "eyJ"] {
        if let Some(at) = word.find(token).filter(|at| word.len() - at > 60) {
            return format!("{}[redacted]", &word[..at]);
        }
    }
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let (address, query) = rest.split_once('?').map_or((rest, ""), |(address, _)| (address, "?..."));
    let end = address.find('/').unwrap_or(address.len());
    let host = address[..end].rsplit_once('@').map_or(&address[..end], |(_, host)| host);
    format!("{scheme}://{host}{}{query}", &address[end..])
}

/// Keystone `{"error": {"message"}}`, Nova `{"badRequest": {"message"}}`, Neutron `{"NeutronError":
/// {"message"}}`, Glance `{"message"}`: the first `message`, not deep down.
fn from_json(json: &Value, depth: u8) -> Option<String> {
    let object = json.as_object()?;
    if let Some(message) = object.get("message").and_then(Value::as_str) {
        return Some(message.to_owned());
    }
    let deeper = depth.checked_sub(1)?;
    object.values().find_map(|value| match value {
        Value::Object(_) => from_json(value, deeper),
        Value::String(text) if object.len() == 1 => Some(text.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    })
}

/// The text of an HTML page (Glance, proxies): no head, script or style, no tags, common entities.
fn from_html(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        text.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        let skipped = ["head", "script", "style"].into_iter().find(|skip| name.eq_ignore_ascii_case(skip));
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '/' | '!' | '?')) {
            text.push('<');
            continue;
        }
        if let Some(skipped) = skipped {
            let close = rest.to_ascii_lowercase().find(&format!("</{skipped}"));
            rest = &rest[close.unwrap_or(rest.len())..];
        }
        rest = rest.find('>').map_or("", |end| &rest[end + 1..]);
        text.push(' ');
    }
    text.push_str(rest);
    without_entities(&text)
}

/// The entities that error pages are escaped with, and any by number.
fn without_entities(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        plain.push_str(before);
        let known = after.split_once(';').and_then(|(name, after)| Some((entity(name)?, after)));
        let (character, after) = known.unwrap_or(('&', after));
        plain.push(character);
        rest = after;
    }
    plain.push_str(rest);
    plain
}

fn entity(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "nbsp" => Some(' '),
        "amp" => Some('&'),
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16),
                None => number.parse(),
            };
            char::from_u32(number.ok()?)
        }
    }
}
