//! Neutron, the Networking service, API v2.0 (API reference: "Networking API v2.0"): only the calls we use.

use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use url::Url;

use super::error::{CloudError, CloudErrorKind};
use super::glance::Deletion;
use super::session::{Call, Session};

/// The Networking service of one cloud.
#[derive(Clone, Debug)]
pub struct Neutron {
    session: Session,
}

/// A network.
#[derive(Clone, Debug, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: String,
    /// Its name; several networks may share one.
    pub name: String,
    /// The project that owns it.
    #[serde(default)]
    pub project_id: String,
    /// Whether it leads outside, and takes no servers in most clouds.
    #[serde(default, rename = "router:external")]
    pub external: bool,
    /// Its subnets; without one a server gets no address.
    #[serde(default)]
    pub subnets: Vec<String>,
}

/// A security group.
#[derive(Clone, Debug, Deserialize)]
pub struct SecurityGroup {
    /// Its id.
    pub id: String,
    /// Its name; several groups may share one.
    pub name: String,
}

#[derive(Deserialize)]
struct Networks {
    networks: Vec<Network>,
}

#[derive(Deserialize)]
struct Groups {
    security_groups: Vec<SecurityGroup>,
}

#[derive(Deserialize)]
struct OneGroup {
    security_group: SecurityGroup,
}

#[derive(Deserialize)]
struct Ports {
    ports: Vec<Port>,
}

/// A port that a server had.
#[derive(Clone, Debug, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: String,
    /// The server it is for; empty for none.
    #[serde(default)]
    pub device_id: String,
}

impl Neutron {
    /// The Networking service of this cloud; sends nothing.
    pub fn new(session: Session) -> Neutron {
        Neutron { session }
    }

    /// `GET /v2.0/networks`: all that this project may use.
    pub async fn networks(&self) -> Result<Vec<Network>, CloudError> {
        Ok(self.get::<Networks>(&["networks"], &[]).await?.networks)
    }

    /// `GET /v2.0/security-groups`, those of exactly this name in this project.
    pub async fn security_groups(&self, name: &str) -> Result<Vec<SecurityGroup>, CloudError> {
        let project = self.session.project_id().await?;
        let query = [("name", name), ("project_id", project.as_str())];
        Ok(self.get::<Groups>(&["security-groups"], &query).await?.security_groups)
    }

    /// `GET /v2.0/security-groups`, all of this project.
    pub async fn all_security_groups(&self) -> Result<Vec<SecurityGroup>, CloudError> {
        let project = self.session.project_id().await?;
        Ok(self.get::<Groups>(&["security-groups"], &[("project_id", &project)]).await?.security_groups)
    }

    /// `POST /v2.0/security-groups`. Names are not unique: of two that are made at once both are there.
    pub async fn create_security_group(&self, name: &str, description: &str) -> Result<SecurityGroup, CloudError> {
        let body = json!({ "security_group": { "name": name, "description": description } });
        let call = Call::json(Method::POST, self.url(&["security-groups"], &[]).await?, &body);
        Ok(self.session.call(&call).await?.json::<OneGroup>()?.security_group)
    }

    /// `POST /v2.0/security-group-rules`: let TCP to `port` in from `cidr`. A rule that is there already is no error.
    pub async fn allow_tcp(&self, group: &str, port: u16, cidr: &str) -> Result<(), CloudError> {
        let ethertype = if cidr.contains(':') { "IPv6" } else { "IPv4" };
        let body = json!({ "security_group_rule": {
            "security_group_id": group, "direction": "ingress", "protocol": "tcp", "ethertype": ethertype,
            "port_range_min": port, "port_range_max": port, "remote_ip_prefix": cidr,
        }});
        let call = Call::json(Method::POST, self.url(&["security-group-rules"], &[]).await?, &body);
        match self.session.call(&call).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == CloudErrorKind::Conflict => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// `DELETE /v2.0/security-groups/{id}`. One that a port still uses is an error of kind `Conflict`.
    pub async fn delete_security_group(&self, id: &str) -> Result<Deletion, CloudError> {
        self.delete(&["security-groups", id]).await
    }

    /// `GET /v2.0/ports`: those of one server. Nova deletes them with it; a failed boot may leave one.
    pub async fn ports(&self, server: &str) -> Result<Vec<Port>, CloudError> {
        Ok(self.get::<Ports>(&["ports"], &[("device_id", server)]).await?.ports)
    }

    /// `DELETE /v2.0/ports/{id}`.
    pub async fn delete_port(&self, id: &str) -> Result<Deletion, CloudError> {
        self.delete(&["ports", id]).await
    }

    async fn delete(&self, path: &[&str]) -> Result<Deletion, CloudError> {
        match self.session.call(&Call::plain(Method::DELETE, self.url(path, &[]).await?)).await {
            Ok(_) => Ok(Deletion::Deleted),
            Err(error) if error.kind == CloudErrorKind::NotFound => Ok(Deletion::AlreadyGone),
            Err(error) => Err(error),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, &str)]) -> Result<T, CloudError> {
        self.session.call(&Call::plain(Method::GET, self.url(path, query).await?)).await?.json()
    }

    /// An address beneath `/v2.0`, whether or not the endpoint names the version itself.
    async fn url(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Url, CloudError> {
        let mut url = self.session.endpoint("network").await?;
        if !url.path().trim_end_matches('/').ends_with("/v2.0") {
            super::beneath(&mut url, &["v2.0"]);
        }
        super::beneath(&mut url, path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }
}
