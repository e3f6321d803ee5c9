//! Which addresses may be asked, judged by the address as it is written.

#[cfg(test)]
mod tests;

use ::url::{Host, Url};

/// Stands for any public host.
const ANY: &str = "*";

/// The variables that name a proxy for https, as reqwest reads them.
const PROXY_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The worker's `--url-host` options.
#[derive(Clone, Debug, Default)]
pub struct UrlPolicy {
    any: bool,
    hosts: Vec<Rule>,
    /// Tests speak to servers of their own without TLS.
    #[cfg(test)]
    pub(super) plain_http: bool,
}

/// One host, and the port if only one of them is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    host: Host<String>,
    port: Option<u16>,
}

/// A `--url-host` that is no host.
#[derive(Debug, thiserror::Error)]
#[error("--url-host {0:?}: give a host, host:port or '*'")]
pub struct PolicyError(String);

/// Why an address may be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// The operator named its host: it may be anywhere.
    Exactly,
    /// By `'*'`: it must have a public address.
    Any,
}

impl UrlPolicy {
    /// Allow these hosts: a name or address, with `:port` for that port alone, or `'*'` for every public host. An IPv6
    /// address stands in brackets.
    ///
    /// # Errors
    /// [`PolicyError`] for what is none of these.
    pub fn new<S: AsRef<str>>(hosts: &[S]) -> Result<UrlPolicy, PolicyError> {
        let mut policy = UrlPolicy::default();
        for entry in hosts.iter().map(AsRef::as_ref) {
            if entry == ANY {
                policy.any = true;
            } else {
                policy.hosts.push(Rule::parse(entry).ok_or_else(|| PolicyError(entry.to_owned()))?);
            }
        }
        Ok(policy)
    }

    /// Whether `url` may be asked, and why.
    ///
    /// # Errors
    /// The reason, without any part of the address that could be secret.
    pub fn permits(&self, url: &Url) -> Result<Permission, String> {
        if url.scheme() != self.scheme() {
            return Err(format!("its scheme is {}, only https is allowed", url.scheme()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("it holds a user name or password; give it none".to_owned());
        }
        let Some(host) = url.host() else { return Err("it has no host".to_owned()) };
        let (host, port) = (same(&host.to_owned()), url.port_or_known_default());
        if self.hosts.iter().any(|rule| rule.host == host && rule.port.is_none_or(|only| Some(only) == port)) {
            return Ok(Permission::Exactly);
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        if self.any { Ok(Permission::Any) } else { Err(format!("{host}{port} is not a --url-host of this worker")) }
    }

    fn scheme(&self) -> &'static str {
        if self.is_https() { "https" } else { "http" }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests can switch it off")]
    pub(super) fn is_https(&self) -> bool {
        true
    }

    #[cfg(test)]
    pub(super) fn is_https(&self) -> bool {
        !self.plain_http
    }
}

impl Rule {
    fn parse(entry: &str) -> Option<Rule> {
        // The parser of addresses knows hosts best; what is not only host and port is refused.
        let url = Url::parse(&format!("https://{entry}")).ok()?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && !entry.ends_with('/');
        let bare = bare && url.username().is_empty() && url.password().is_none() && !entry.contains(['*', '@', '\\']);
        // The default port is lost in parsing.
        let port = if entry.ends_with(":443") { Some(443) } else { url.port() };
        let host = same(&url.host()?.to_owned());
        bare.then_some(Rule { host, port })
    }
}

/// A host without the dot of the root; the parser has made it lower-case already.
fn same(host: &Host<String>) -> Host<String> {
    match host {
        Host::Domain(name) => Host::Domain(plain(name)),
        Host::Ipv4(ip) => Host::Ipv4(*ip),
        Host::Ipv6(ip) => Host::Ipv6(*ip),
    }
}

/// A name as it is compared.
pub(super) fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// The host names of the proxies in the environment.
pub(super) fn proxy_hosts(variable: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let values = PROXY_VARIABLES.iter().filter_map(|name| variable(name)).filter(|value| !value.is_empty());
    let parse = |value: String| {
        let value = if value.contains("://") { value } else { format!("http://{value}") };
        Url::parse(&value).ok()?.host_str().map(plain)
    };
    values.filter_map(parse).collect()
}
