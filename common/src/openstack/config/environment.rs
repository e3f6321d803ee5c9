//! The cloud that the `OS_*` variables describe, which openstacksdk calls "envvars".

use crate::yaml::{Node, Nodes};

/// The variables that make a cloud, without `OS_`. openstacksdk takes every `OS_*` variable; these are the
/// ones that anything here reads. `REGION_NAME` alone makes no cloud there either.
const KEYS: [&str; 46] = [
    "AUTH_URL",
    "AUTH_TYPE",
    "USERNAME",
    "USER_NAME",
    "USER_ID",
    "PASSWORD",
    "TOKEN",
    "AUTH_TOKEN",
    "APPLICATION_CREDENTIAL_ID",
    "APPLICATION_CREDENTIAL_NAME",
    "APPLICATION_CREDENTIAL_SECRET",
    "PROJECT_ID",
    "PROJECT_NAME",
    "TENANT_ID",
    "TENANT_NAME",
    "DOMAIN_ID",
    "DOMAIN_NAME",
    "USER_DOMAIN_ID",
    "USER_DOMAIN_NAME",
    "PROJECT_DOMAIN_ID",
    "PROJECT_DOMAIN_NAME",
    "DEFAULT_DOMAIN_ID",
    "DEFAULT_DOMAIN_NAME",
    "SYSTEM_SCOPE",
    "TRUST_ID",
    "PROFILE",
    "IDENTITY_API_VERSION",
    "INTERFACE",
    "ENDPOINT_TYPE",
    "VERIFY",
    "INSECURE",
    "CACERT",
    "CERT",
    "KEY",
    "IMAGE_ENDPOINT_OVERRIDE",
    "IMAGE_ENDPOINT",
    "IMAGE_INTERFACE",
    "IMAGE_REGION_NAME",
    "COMPUTE_ENDPOINT_OVERRIDE",
    "COMPUTE_ENDPOINT",
    "COMPUTE_INTERFACE",
    "COMPUTE_REGION_NAME",
    "NETWORK_ENDPOINT_OVERRIDE",
    "NETWORK_ENDPOINT",
    "NETWORK_INTERFACE",
    "NETWORK_REGION_NAME",
];

/// The cloud of the environment, if any variable describes one.
pub(super) fn cloud(env: &dyn Fn(&str) -> Option<String>) -> Option<Nodes> {
    let mut cloud = Nodes::new();
    for key in KEYS {
        if let Some(value) = env(&format!("OS_{key}")) {
            cloud.insert(key.to_lowercase(), Node::Text(value));
        }
    }
    if cloud.is_empty() {
        return None;
    }
    if let Some(region) = env("OS_REGION_NAME") {
        cloud.insert("region_name".to_owned(), Node::Text(region));
    }
    Some(cloud)
}
