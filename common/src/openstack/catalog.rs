//! The service catalog that comes with a token.

use serde::Deserialize;
use url::Url;

use super::config::Interface;

/// Services and their endpoints, as in the body of a token.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Catalog {
    services: Vec<Service>,
}

#[derive(Debug, Deserialize)]
struct Service {
    #[serde(rename = "type", default)]
    service_type: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    #[serde(default)]
    interface: String,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    region_id: Option<String>,
    #[serde(default)]
    url: String,
}

/// The names a service type has had (the service types authority).
fn names(service_type: &str) -> &[&str] {
    match service_type {
        "compute" => &["compute", "computev21"],
        "image" => &["image", "glance"],
        "network" => &["network", "networking"],
        _ => &[],
    }
}

impl Catalog {
    /// Whether the service is there in this region, on whatever interface.
    pub(super) fn has(&self, service_type: &str, region: Option<&str>) -> bool {
        self.endpoints(service_type, region).next().is_some()
    }

    /// The address of a service.
    pub(super) fn endpoint(&self, service_type: &str, interface: Interface, region: Option<&str>) -> Option<Url> {
        self.endpoints(service_type, region)
            .filter(|endpoint| Interface::parse(&endpoint.interface) == Some(interface))
            .find_map(|endpoint| Url::parse(&endpoint.url).ok())
    }

    fn endpoints(&self, service_type: &str, region: Option<&str>) -> impl Iterator<Item = &Endpoint> {
        self.services
            .iter()
            .filter(move |service| {
                service.service_type == service_type || names(service_type).contains(&service.service_type.as_str())
            })
            .flat_map(|service| &service.endpoints)
            .filter(move |endpoint| {
                let known = endpoint.region_id.as_deref().or(endpoint.region.as_deref());
                region.is_none() || region == known || region == endpoint.region.as_deref()
            })
    }
}
