//! The JSON Schema of the message, for whoever publishes without our producer.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::Message;
use crate::wire::{CORE_ATTRIBUTES, OUR_PREFIXES};

/// Where the schema is published.
const ID: &str = "https://github.com/imagewright/imagewright/blob/main/docs/schema/message-v1.json";

/// The JSON Schema (draft 2020-12) of [`Message`]. It accepts what the decoder accepts, but for what depends on the
/// time or on the reader.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Message>().to_value();
    schema["$id"] = json!(ID);
    schema["title"] = json!("Imagewright job message, version 1");
    if let Some(properties) = schema.pointer_mut("/$defs/Spec/oneOf/0/properties/properties") {
        properties["propertyNames"] = property_names();
    }
    schema
}

/// The JSON Schema of the names that `properties` of an upload may hold.
pub fn property_names() -> Value {
    let reserved = format!("^({})", OUR_PREFIXES.join("|"));
    let refused = json!({ "anyOf": [{ "pattern": reserved }, { "enum": CORE_ATTRIBUTES }] });
    json!({ "minLength": 1, "maxLength": 255, "not": refused })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spec_is_told_by_its_kind_and_refuses_what_it_does_not_know() {
        let schema = schema();
        let specs = schema["$defs"]["Spec"]["oneOf"].as_array().unwrap();
        let kinds: Vec<&str> = specs.iter().filter_map(|spec| spec["properties"]["kind"]["const"].as_str()).collect();
        assert_eq!(kinds, super::super::Kind::ALL.map(super::super::Kind::as_str));
        for spec in specs {
            assert_eq!(spec["additionalProperties"], false);
            assert!(spec["required"].as_array().unwrap().contains(&json!("kind")));
        }
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert!(specs[0]["properties"]["properties"]["propertyNames"]["not"].is_object());
    }
}
