//! YAML, the one file that names the YAML crate.
//!
//! Two readers: [`parse`] for our own files (policy, schedule), into a type, strictly; and `nodes` for
//! files whose keys are not all ours (`clouds.yaml`), into a tree, as leniently as PyYAML reads them.
//! `clouds.yaml` and `secure.yaml` hold secrets, so no error of `nodes` ever quotes a value.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_path_to_error::Track;
use serde_saphyr::{DuplicateKeyPolicy, Options, Spanned};

use crate::wire;

/// Why a text is not the YAML that was expected, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct YamlError {
    /// Line, from 1; 0 when it is not known.
    pub line: u64,
    /// Column in characters, from 1; 0 when it is not known.
    pub column: u64,
    /// What is wrong there.
    pub problem: String,
}

impl YamlError {
    fn new(error: &serde_saphyr::Error, problem: String) -> YamlError {
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        // The YAML crate says the place as well, behind.
        let behind = format!(" at line {line}, column {column}");
        let problem = problem.strip_suffix(&behind).map(str::to_owned).unwrap_or(problem);
        YamlError { line, column, problem }
    }
}

/// Reads one YAML document into a type. A key given twice is an error. The error names the key at fault by its path, as
/// in `images[0].keep`, and may quote what stands in the text, so this is for files that hold no secrets.
///
/// # Errors
/// [`YamlError`], for what is no YAML or not of that type.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    let options = serde_saphyr::options! { with_snippet: false };
    let mut track = Track::new();
    let read = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track))
    });
    read.map_err(|error| {
        let reason = error.to_string();
        let place = wire::field(&track.path().to_string(), &reason);
        YamlError::new(&error, if place.is_empty() { reason } else { format!("{place}: {reason}") })
    })
}

/// A YAML value whose numbers are still the text that was written: `0123`, `1e5` and `1.10` are more often
/// a password or an id than a number.
///
/// It has no `Debug`, because it may hold a password.
#[derive(Clone, PartialEq)]
pub(crate) enum Node {
    /// `null`, `~` or nothing.
    Null,
    /// Also `yes`, `no`, `on` and `off`, as in YAML 1.1.
    Bool(bool),
    /// A string, or a number as it was written.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping; a key that is not a string is taken as it was written.
    Map(Nodes),
}

/// A mapping of a YAML document.
pub(crate) type Nodes = BTreeMap<String, Node>;

/// Reads one YAML (or JSON) document as PyYAML's `safe_load` does: merge keys, `yes` and `no`, and the last
/// of several equal keys wins. An empty text is [`Node::Null`]. Errors carry the place but none of the text.
pub(crate) fn nodes(text: &str) -> Result<Node, YamlError> {
    let options: Options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
    };
    let raw: Option<Spanned<Raw>> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let problem = "this is not valid YAML (values with special characters need quotes)";
        YamlError::new(&error, problem.to_owned())
    })?;
    Ok(raw.map_or(Node::Null, |raw| settle(raw, text)))
}

/// A value as the YAML crate hands it over; a number is looked up in the text afterwards.
enum Raw {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(String, Spanned<Raw>)>),
}

fn settle(raw: Spanned<Raw>, text: &str) -> Node {
    let written = written(&raw, text);
    match raw.value {
        Raw::Null => Node::Null,
        // The YAML crate takes a single letter for a word, PyYAML does not: `y` may be a name.
        Raw::Bool(value) => match written {
            Some(written) if written.len() == 1 => Node::Text(written.to_owned()),
            Some(_) | None => Node::Bool(value),
        },
        Raw::Text(value) => Node::Text(value),
        Raw::Number(value) => Node::Text(written.map_or(value, str::to_owned)),
        Raw::List(items) => Node::List(items.into_iter().map(|item| settle(item, text)).collect()),
        Raw::Map(items) => Node::Map(items.into_iter().map(|(key, value)| (key, settle(value, text))).collect()),
    }
}

/// How a value stands in the text, at its anchor if it is an alias.
fn written<'a>(raw: &Spanned<Raw>, text: &'a str) -> Option<&'a str> {
    let span = raw.defined.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    text.get(start..end).map(str::trim)
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Raw, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value.to_string()))
    }
    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(item) = items.next_entry()? {
            map.push(item);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(document: &str) -> String {
        match nodes(document).unwrap() {
            Node::Map(map) => match &map["a"] {
                Node::Text(text) => text.clone(),
                Node::Null => "null".to_owned(),
                Node::Bool(value) => format!("bool {value}"),
                Node::List(_) | Node::Map(_) => "nested".to_owned(),
            },
            Node::Null | Node::Bool(_) | Node::Text(_) | Node::List(_) => "no map".to_owned(),
        }
    }

    #[test]
    fn numbers_keep_the_text_that_was_written() {
        for written in
            ["0123", "1e5", "1.10", "1_000", "0x1F", "-7", "123456789012345678901234567890123456789012", ".5", "3"]
        {
            assert_eq!(text(&format!("x: é\na: {written} # c\nb: 1")), written);
            assert_eq!(text(&format!("x: &n {written}\na: *n")), written, "through an alias");
            assert_eq!(text(&format!("x: &m {{a: {written}}}\n<<: *m")), written, "through a merge");
        }
    }

    #[test]
    fn words_are_read_as_pyyaml_reads_them() {
        assert_eq!(text("a: no"), "bool false");
        assert_eq!(text("a: Yes"), "bool true");
        assert_eq!(text("a: 'no'"), "no");
        assert_eq!(text("a: n"), "n");
        assert_eq!(text("a: [y]\na: Y"), "Y");
        assert_eq!(text("a: ~"), "null");
        assert_eq!(text("a:"), "null");
        assert_eq!(text("a: 1\na: 2"), "2");
        assert_eq!(text("{\n\t\"a\": \"\\u00e9\",\n\t\"b\": [1, 2]\n}"), "é");
        assert!(nodes("").unwrap() == Node::Null);
        assert!(nodes("# only a comment\n").unwrap() == Node::Null);
    }

    #[test]
    fn an_error_says_where_but_quotes_nothing() {
        for broken in
            ["clouds:\n  a:\n    password: *s3cret\n", "clouds:\n  a: {password: s3cret\n", "a: b\n  s3cret: [c"]
        {
            let error = nodes(broken).err().unwrap();
            assert!(error.line > 0, "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn typed_files_refuse_a_key_given_twice() {
        let error = parse::<BTreeMap<String, u8>>("a: 1\na: 2\n").err().unwrap();
        assert_eq!(error.line, 2);
    }

    #[test]
    fn an_error_in_a_typed_file_says_where_and_in_what() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Inner {
            #[serde(rename = "b")]
            _b: u8,
        }
        for (text, shown) in [
            ("a:\n  - b: 1\n  - c: 1\n", "line 3, column 5: a[1].c: unknown field `c`, expected one of b"),
            ("a:\n  - b: soon\n", "line 2, column 8: a[0].b: "),
            ("a:\n  - {}\n", "line 2, column 5: a[0].b: missing field `b`"),
        ] {
            let error = parse::<BTreeMap<String, Vec<Inner>>>(text).err().unwrap().to_string();
            assert!(error.starts_with(shown), "{error}");
        }
    }
}
