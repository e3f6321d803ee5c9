//! https addresses: which may be asked, and asking them so that what was checked is what is connected to.
//!
//! The certificate authorities of the platform are trusted; `SSL_CERT_FILE` and `SSL_CERT_DIR` replace them, read when
//! the client is made. `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` apply.

mod address;
mod answer;
mod policy;
#[cfg(test)]
mod tests;
mod text;

use std::net::IpAddr;
use std::time::Duration;

use ::url::{Host, Url};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION, TRANSFER_ENCODING};
use reqwest::{Client, Response, StatusCode};

use super::SourceError;
use super::pump::STALL;
use address::Public;
pub use policy::{Permission, PolicyError, UrlPolicy};
pub use text::Text;

/// The field of a job that names an address.
pub const FIELD: &str = "spec.source.url";
/// The field of a job that says the digest of what an address holds.
pub const DIGEST_FIELD: &str = "spec.source.sha256";

/// How many redirects are followed, each to an address that is checked like the first.
pub const REDIRECTS_MAX: usize = 5;

/// How long a connection may take, TLS included.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// Asks https addresses that the policy allows.
pub struct UrlClient {
    policy: UrlPolicy,
    /// For hosts that the operator named exactly: any address.
    named: Client,
    /// For hosts that `'*'` stands for: public addresses only.
    open: Client,
    /// Hosts of the proxies, which may be private and are nobody's source.
    proxies: Vec<String>,
}

/// An answer whose body has not been read yet.
pub struct Download<S> {
    /// Every address that was asked: the first redirects to the second, the last answered.
    pub hops: Vec<Url>,
    /// What the server announced, in bytes; more than 0.
    pub length: u64,
    /// The body. It fails with [`SourceError::Transient`] when the connection does.
    pub chunks: S,
}

impl UrlClient {
    /// A client that obeys `policy`.
    ///
    /// # Errors
    /// When TLS cannot be set up, such as without any trusted certificate authority.
    pub fn new(policy: UrlPolicy) -> Result<UrlClient, reqwest::Error> {
        let proxies = policy::proxy_hosts(|name| std::env::var(name).ok());
        UrlClient::with_proxies(policy, proxies)
    }

    fn with_proxies(policy: UrlPolicy, proxies: Vec<String>) -> Result<UrlClient, reqwest::Error> {
        let open = builder(&policy).dns_resolver(Public { except: proxies.clone() }).build()?;
        Ok(UrlClient { named: builder(&policy).build()?, open, policy, proxies })
    }

    /// Ask for `url` and follow redirects; `field` is blamed for what is refused. The body must be read with a watchdog
    /// of one's own: nothing here limits how long the whole takes.
    ///
    /// # Errors
    /// [`SourceError::Refused`] by policy, or when the server says that there is no such thing (or gives no
    /// Content-Length); [`SourceError::Transient`] when it cannot be reached or is in trouble.
    pub async fn get(
        &self,
        url: &Url,
        field: &str,
    ) -> Result<Download<impl Stream<Item = Result<Bytes, SourceError>> + Send + use<>>, SourceError> {
        let refuse = |reason: String| SourceError::Refused { field: field.to_owned(), reason };
        let mut at = url.clone();
        let mut hops = Vec::new();
        for hop in 0..=REDIRECTS_MAX {
            let response = self.ask(&at).await.map_err(|failure| failure.of(field, hop))?;
            hops.push(at.clone());
            if !response.status().is_redirection() {
                return accept(response, hops).map_err(|failure| failure.of(field, hop));
            }
            let target = response.headers().get(LOCATION).and_then(|target| target.to_str().ok());
            let target = target.and_then(|target| at.join(target).ok());
            at = target.ok_or_else(|| refuse(format!("the server redirects to nowhere ({})", response.status())))?;
        }
        Err(refuse(format!("more than {REDIRECTS_MAX} redirects; give the address that they lead to")))
    }

    /// One request, after every check.
    async fn ask(&self, url: &Url) -> Result<Response, answer::Failure> {
        let permission = self.policy.permits(url).map_err(answer::Failure::Refused)?;
        let client = match permission {
            Permission::Exactly => &self.named,
            Permission::Any => {
                self.public(url).await?;
                &self.open
            }
        };
        let sent = client.get(url.clone()).header(ACCEPT_ENCODING, "identity").send();
        match tokio::time::timeout(STALL, sent).await {
            Ok(answer) => answer.map_err(answer::Failure::of_request),
            Err(_) => Err(answer::Failure::transient(format!("no answer within {} s", STALL.as_secs()))),
        }
    }

    /// What the resolver of the client cannot see: literal addresses, and hosts that a proxy would resolve.
    async fn public(&self, url: &Url) -> Result<(), answer::Failure> {
        let refuse = |reason: String| Err(answer::Failure::Refused(reason));
        let name = match url.host() {
            Some(Host::Ipv4(ip)) => return address::check(IpAddr::V4(ip)).or_else(refuse),
            Some(Host::Ipv6(ip)) => return address::check(IpAddr::V6(ip)).or_else(refuse),
            Some(Host::Domain(name)) => policy::plain(name),
            None => return refuse("it has no host".to_owned()),
        };
        if self.proxies.contains(&name) {
            return refuse("its host is the proxy of this worker".to_owned());
        }
        if self.proxies.is_empty() {
            return Ok(());
        }
        // Behind a proxy names often mean nothing here; what they do mean counts.
        match address::resolve(&name).await {
            Ok(found) => {
                address::public_only(found).map(|_| ()).map_err(|error| answer::Failure::Refused(error.to_string()))
            }
            Err(_) => Ok(()),
        }
    }
}

fn builder(policy: &UrlPolicy) -> reqwest::ClientBuilder {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Client::builder()
        .user_agent(concat!("imagewright/", env!("CARGO_PKG_VERSION")))
        .default_headers(headers)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .https_only(policy.is_https())
        .connect_timeout(CONNECT_MAX)
        .pool_max_idle_per_host(0)
}

/// A 200 with a length and plain bytes.
fn accept(
    response: Response,
    hops: Vec<Url>,
) -> Result<Download<impl Stream<Item = Result<Bytes, SourceError>> + Send + use<>>, answer::Failure> {
    if response.status() != StatusCode::OK {
        return Err(answer::judge(response.status(), response.headers()));
    }
    let refuse = |reason: &str| Err(answer::Failure::Refused(reason.to_owned()));
    let identity = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !response.headers().get(CONTENT_ENCODING).is_none_or(identity) {
        return refuse("the server sends it compressed (Content-Encoding), so its length is unknown");
    }
    if response.headers().contains_key(TRANSFER_ENCODING) {
        return refuse("the server gives no Content-Length (Transfer-Encoding); put it on one that does");
    }
    match response.content_length() {
        None => refuse("the server gives no Content-Length; put it on one that does"),
        Some(0) => refuse("it is empty (Content-Length 0)"),
        Some(length) => {
            let chunks = response.bytes_stream().map_err(|error| answer::broken(&error));
            Ok(Download { hops, length, chunks })
        }
    }
}
