//! Nova, the Compute service, API v2.1 at microversion 2.45 (API reference: "Compute API"): only the calls we use.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::error::{CloudError, CloudErrorKind, Place};
use super::glance::Deletion;
use super::session::{Call, Session};

/// From here on `createImage` tells the id of the image in its body (Nova 16, Pike).
const MICROVERSION: &str = "compute 2.45";

/// 100 000 servers of one project are not a list but a mistake: Nova gives 1000 at once by default.
const PAGES_MAX: usize = 100;

/// The longest console text that is asked for, in lines.
const CONSOLE_LINES: u32 = 200;

/// The Compute service of one cloud.
#[derive(Clone, Debug)]
pub struct Nova {
    session: Session,
}

/// A virtual machine.
#[derive(Clone, Debug, Deserialize)]
pub struct Server {
    /// Its id.
    pub id: String,
    /// Its name; several servers may share one.
    pub name: String,
    /// When it was asked for, in whole seconds, by Nova's clock.
    #[serde(default)]
    pub created: Option<Timestamp>,
    /// `BUILD`, `ACTIVE`, `SHUTOFF`, `ERROR` and others ("Server statuses" of the API reference).
    pub status: String,
    /// What Nova is doing with it just now; none when it is at rest.
    #[serde(rename = "OS-EXT-STS:task_state")]
    pub task_state: Option<String>,
    /// What its maker wrote on it.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// Why it is in `ERROR`.
    #[serde(default)]
    pub fault: Option<Fault>,
    /// Its addresses, by network.
    #[serde(default)]
    pub addresses: BTreeMap<String, Vec<Address>>,
    /// The image it was booted from; empty text when from a volume.
    #[serde(default)]
    pub image: Value,
}

/// What went wrong with a server.
#[derive(Clone, Debug, Deserialize)]
pub struct Fault {
    /// What Nova says.
    pub message: String,
}

/// Where a server can be reached.
#[derive(Clone, Debug, Deserialize)]
pub struct Address {
    /// The IP address.
    pub addr: String,
    /// 4 or 6.
    pub version: u8,
}

impl Server {
    /// The Glance id of what it was booted from; none when that was a volume.
    pub fn image_id(&self) -> Option<&str> {
        self.image.get("id").and_then(Value::as_str)
    }

    /// The address to log in at: an IPv4 one where there is one.
    pub fn address(&self) -> Option<&str> {
        let all = || self.addresses.values().flatten();
        all().find(|address| address.version == 4).or_else(|| all().next()).map(|address| address.addr.as_str())
    }

    /// Whether it can never run again by itself.
    pub fn is_broken(&self) -> bool {
        matches!(self.status.as_str(), "ERROR" | "DELETED" | "SOFT_DELETED")
    }
}

/// A size of server.
#[derive(Clone, Debug, Deserialize)]
pub struct Flavor {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub ram: u64,
    /// Root disk in GiB.
    pub disk: u64,
    /// Whether it may not be used.
    #[serde(default, rename = "OS-FLV-DISABLED:disabled")]
    pub disabled: bool,
}

/// A server that is wanted.
pub struct NewServer {
    /// Its name.
    pub name: String,
    /// The Glance id of what it boots.
    pub image: String,
    /// The id of its flavor.
    pub flavor: String,
    /// The Neutron id of its network.
    pub network: String,
    /// The name of the key pair that may log in.
    pub key_name: String,
    /// The Neutron id of its security group.
    pub security_group: String,
    /// For cloud-init, Base64.
    pub user_data: SecretString,
    /// Written on it, and into its snapshots.
    pub metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct One {
    server: Server,
}

#[derive(Deserialize)]
struct Servers {
    servers: Vec<Server>,
    /// Where the next page is; a list that ends here has none.
    #[serde(default)]
    servers_links: Vec<Value>,
}

#[derive(Deserialize)]
struct KeyPairs {
    keypairs: Vec<OneKeyPair>,
}

#[derive(Deserialize)]
struct OneKeyPair {
    keypair: KeyPair,
}

#[derive(Deserialize)]
struct KeyPair {
    name: String,
}

#[derive(Deserialize)]
struct Created {
    server: CreatedServer,
}

#[derive(Deserialize)]
struct CreatedServer {
    id: String,
}

#[derive(Deserialize)]
struct Flavors {
    flavors: Vec<Flavor>,
}

#[derive(Deserialize)]
struct Console {
    output: String,
}

#[derive(Deserialize)]
struct Requested {
    image_id: String,
}

impl Nova {
    /// The Compute service of this cloud; sends nothing.
    pub fn new(session: Session) -> Nova {
        Nova { session }
    }

    /// The cloud it belongs to.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// `POST /os-keypairs`. A name that exists is an error of kind `Conflict`.
    pub async fn create_keypair(&self, name: &str, public_key: &str) -> Result<(), CloudError> {
        let body = json!({ "keypair": { "name": name, "public_key": public_key } });
        self.send(Call::json(Method::POST, self.url(&["os-keypairs"]).await?, &body)).await.map(drop)
    }

    /// `GET /os-keypairs`: the names of all key pairs of this user.
    pub async fn keypairs(&self) -> Result<Vec<String>, CloudError> {
        let answer = self.send(Call::plain(Method::GET, self.url(&["os-keypairs"]).await?)).await?;
        Ok(answer.json::<KeyPairs>()?.keypairs.into_iter().map(|one| one.keypair.name).collect())
    }

    /// `DELETE /os-keypairs/{name}`.
    pub async fn delete_keypair(&self, name: &str) -> Result<Deletion, CloudError> {
        self.delete(&["os-keypairs", name]).await
    }

    /// `GET /flavors/detail`.
    pub async fn flavors(&self) -> Result<Vec<Flavor>, CloudError> {
        let answer = self.send(Call::plain(Method::GET, self.url(&["flavors", "detail"]).await?)).await?;
        Ok(answer.json::<Flavors>()?.flavors)
    }

    /// `POST /servers`. Returns at once with the id; the server is `BUILD` then. A quota that is used up is `Busy`.
    pub async fn create_server(&self, server: &NewServer) -> Result<String, CloudError> {
        let body = json!({ "server": {
            "name": server.name,
            "imageRef": server.image,
            "flavorRef": server.flavor,
            "networks": [{ "uuid": server.network }],
            "key_name": server.key_name,
            "security_groups": [{ "name": server.security_group }],
            "user_data": server.user_data.expose_secret(),
            "metadata": server.metadata,
            "config_drive": true,
        }});
        let answer = self.send(Call::json(Method::POST, self.url(&["servers"]).await?, &body)).await?;
        Ok(answer.json::<Created>()?.server.id)
    }

    /// `GET /servers/{id}`. One that is gone is an error of kind `NotFound`.
    pub async fn server(&self, id: &str) -> Result<Server, CloudError> {
        let answer = self.send(Call::plain(Method::GET, self.url(&["servers", id]).await?)).await?;
        Ok(answer.json::<One>()?.server)
    }

    /// `GET /servers/detail`, all pages: those of this project whose name begins with `prefix`. Nova matches names as
    /// regular expressions; the list is filtered again here.
    pub async fn servers(&self, prefix: &str) -> Result<Vec<Server>, CloudError> {
        let mut servers: Vec<Server> = Vec::new();
        for _ in 0..PAGES_MAX {
            let mut url = self.url(&["servers", "detail"]).await?;
            if !prefix.is_empty() {
                url.query_pairs_mut().append_pair("name", &format!("^{}", literal(prefix)));
            }
            if let Some(last) = servers.last() {
                url.query_pairs_mut().append_pair("marker", &last.id);
            }
            let page = self.send(Call::plain(Method::GET, url)).await?.json::<Servers>()?;
            let is_last = page.servers_links.is_empty();
            servers.extend(page.servers);
            if is_last {
                servers.retain(|server| server.name.starts_with(prefix));
                return Ok(servers);
            }
        }
        let place = Place { cloud: self.session.cloud().to_owned(), operation: "GET /servers/detail".to_owned() };
        Err(place.error(CloudErrorKind::Protocol, "the list of servers does not end"))
    }

    /// `DELETE /servers/{id}`. Returns before it is gone.
    pub async fn delete_server(&self, id: &str) -> Result<Deletion, CloudError> {
        self.delete(&["servers", id]).await
    }

    /// `os-stop`. A server that is stopped or stopping is an error of kind `Conflict`.
    pub async fn stop(&self, id: &str) -> Result<(), CloudError> {
        self.act(id, &json!({ "os-stop": null })).await.map(drop)
    }

    /// `os-start`. A server that runs is an error of kind `Conflict`.
    pub async fn start(&self, id: &str) -> Result<(), CloudError> {
        self.act(id, &json!({ "os-start": null })).await.map(drop)
    }

    /// `createImage`: the Glance id of the image that will be. A server of which one is being made already is an error
    /// of kind `Conflict`.
    pub async fn create_image(
        &self,
        id: &str,
        name: &str,
        metadata: &BTreeMap<String, String>,
    ) -> Result<String, CloudError> {
        let answer = self.act(id, &json!({ "createImage": { "name": name, "metadata": metadata } })).await?;
        Ok(answer.json::<Requested>()?.image_id)
    }

    /// `os-getConsoleOutput`: the last lines. None while there is no console: in `BUILD` (409) and `SHUTOFF` (404).
    pub async fn console(&self, id: &str) -> Result<Option<String>, CloudError> {
        match self.act(id, &json!({ "os-getConsoleOutput": { "length": CONSOLE_LINES } })).await {
            Ok(answer) => Ok(Some(answer.json::<Console>()?.output)),
            Err(error) if matches!(error.kind, CloudErrorKind::Conflict | CloudErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn act(&self, id: &str, body: &Value) -> Result<super::http::Answer, CloudError> {
        self.send(Call::json(Method::POST, self.url(&["servers", id, "action"]).await?, body)).await
    }

    async fn delete(&self, path: &[&str]) -> Result<Deletion, CloudError> {
        match self.send(Call::plain(Method::DELETE, self.url(path).await?)).await {
            Ok(_) => Ok(Deletion::Deleted),
            Err(error) if error.kind == CloudErrorKind::NotFound => Ok(Deletion::AlreadyGone),
            Err(error) => Err(error),
        }
    }

    async fn send(&self, call: Call) -> Result<super::http::Answer, CloudError> {
        self.session.call(&Call { version: Some(MICROVERSION), ..call }).await
    }

    async fn url(&self, path: &[&str]) -> Result<Url, CloudError> {
        let mut url = self.session.endpoint("compute").await?;
        super::beneath(&mut url, path);
        Ok(url)
    }
}

/// A text as a regular expression that matches just it.
fn literal(text: &str) -> String {
    text.chars()
        .flat_map(|c| (!c.is_ascii_alphanumeric() && c != '-' && c != '_').then_some('\\').into_iter().chain([c]))
        .collect()
}
