//! Where the queue is, as `--queue` says it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

/// Where the queue is. Shown without passwords.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// RabbitMQ: the hosts to try in turn, all of one cluster.
    Amqp(Vec<AmqpHost>),
    /// A file of this machine.
    Sqlite(PathBuf),
}

/// One host of a RabbitMQ cluster. Shown as its label only.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpHost {
    /// The whole address, password included, without our own TLS parameters.
    pub uri: String,
    /// Its name or address, an IPv6 one without brackets.
    pub name: String,
    /// Its port.
    pub port: u16,
    /// What the URL said about TLS; empty for `amqp://`.
    pub tls: Tls,
    /// `host:port/vhost`, safe to show; the vhost as in the URL, `%2F` for the default one.
    pub label: String,
}

/// The files of a TLS connection, in PEM; named by the URL's query as RabbitMQ's own clients do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// `cacertfile`: who may vouch for the server; the system's authorities by default.
    pub ca: Option<PathBuf>,
    /// `certfile`: who we are.
    pub cert: Option<PathBuf>,
    /// `keyfile`: the key of `cert`.
    pub key: Option<PathBuf>,
}

/// A `--queue` value that names no queue. Says what to write instead; holds no part of a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Nothing that begins like an address.
    #[error(
        "a queue is sqlite:PATH, amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST] or amqps://.., several hosts separated by commas"
    )]
    Form,
    /// `sqlite:` without a usable path.
    #[error("write the queue file as sqlite:PATH, as in sqlite:/var/lib/imagewright/queue.db")]
    Path,
    /// A list that mixes schemes.
    #[error(
        "address {position} of the list does not begin with {expected}: all hosts of a list share one scheme, and a comma inside a password is written %2C"
    )]
    Mixed {
        /// Its place in the list, from 1.
        position: usize,
        /// What the first one begins with.
        expected: &'static str,
    },
    /// A URL that cannot be read.
    #[error(
        "address {position} of the list is no URL ({reason}): in a user name or password write @ as %40, / as %2F, : as %3A, # as %23, ? as %3F"
    )]
    Url {
        /// Its place in the list, from 1.
        position: usize,
        /// What the parser says.
        reason: String,
    },
    /// TLS parameters that do not fit.
    #[error("address {position} of the list: {reason}")]
    Tls {
        /// Its place in the list, from 1.
        position: usize,
        /// What to change.
        reason: &'static str,
    },
    /// No place for the embedded queue.
    #[error("no queue is named and there is no HOME to keep one in: write --queue sqlite:PATH or --queue amqp://HOST")]
    NoHome,
}

const PLAIN: &str = "amqp://";
const SECURE: &str = "amqps://";

impl Address {
    /// The embedded queue of this user: `imagewright/queue.db` in `$XDG_STATE_HOME`, else in `~/.local/state` (XDG Base
    /// Directory Specification 0.8, which has a relative `$XDG_STATE_HOME` ignored).
    ///
    /// # Errors
    /// [`AddressError::NoHome`] when `env` knows neither.
    pub fn embedded(env: &dyn Fn(&str) -> Option<String>) -> Result<Address, AddressError> {
        Ok(Address::Sqlite(state_directory(env)?.join("queue.db")))
    }
}

/// Where this user's state lies: see [`Address::embedded`].
///
/// # Errors
/// [`AddressError::NoHome`] when `env` knows neither.
pub fn state_directory(env: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, AddressError> {
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    Ok(state.ok_or(AddressError::NoHome)?.join("imagewright"))
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(value: &str) -> Result<Self, AddressError> {
        let value = value.trim();
        if let Some(path) = value.strip_prefix("sqlite:") {
            return file(path);
        }
        let scheme = [PLAIN, SECURE].into_iter().find(|scheme| value.starts_with(scheme)).ok_or(AddressError::Form)?;
        let hosts = value.split(',').enumerate().map(|(index, part)| host(part.trim(), scheme, index + 1));
        hosts.collect::<Result<_, _>>().map(Address::Amqp)
    }
}

/// `sqlite://HOST/..` is refused: whoever writes two slashes expects a URL, where a host would follow.
fn file(path: &str) -> Result<Address, AddressError> {
    let path = match path.strip_prefix("//") {
        Some(rest) if rest.starts_with('/') => rest,
        Some(_) => return Err(AddressError::Path),
        None => path,
    };
    if path.is_empty() || path.ends_with('/') || path.contains('\0') {
        return Err(AddressError::Path);
    }
    Ok(Address::Sqlite(PathBuf::from(path)))
}

fn host(part: &str, scheme: &'static str, position: usize) -> Result<AmqpHost, AddressError> {
    if !part.starts_with(scheme) {
        return Err(AddressError::Mixed { position, expected: scheme });
    }
    let bad = |reason: &str| AddressError::Url { position, reason: reason.to_owned() };
    let mut url = Url::parse(part).map_err(|error| bad(&error.to_string()))?;
    let Some(name) = url.host_str().filter(|name| !name.is_empty()).map(str::to_owned) else {
        return Err(bad("it names no host"));
    };
    if url.fragment().is_some() {
        return Err(bad("it has a # in it"));
    }
    // The URI specification reads a lone slash as a vhost without a name, which nobody has; everybody means the default.
    if url.path().len() <= 1 {
        url.set_path("/%2F");
    }
    let secure = scheme == SECURE;
    let tls = take_tls(&mut url);
    tls.check(secure).map_err(|reason| AddressError::Tls { position, reason })?;
    let port = url.port().unwrap_or(if secure { 5671 } else { 5672 });
    let label = format!("{name}:{port}{}", url.path());
    let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok(AmqpHost { uri: url.into(), name, port, tls, label })
}

/// Our parameters out of the query; what else is there stays.
fn take_tls(url: &mut Url) -> Tls {
    let mut tls = Tls::default();
    let mut rest = Vec::new();
    for (key, value) in url.query_pairs() {
        match key.as_ref() {
            "cacertfile" => tls.ca = Some(PathBuf::from(value.as_ref())),
            "certfile" => tls.cert = Some(PathBuf::from(value.as_ref())),
            "keyfile" => tls.key = Some(PathBuf::from(value.as_ref())),
            _ => rest.push((key.into_owned(), value.into_owned())),
        }
    }
    if rest.is_empty() {
        url.set_query(None);
    } else {
        url.query_pairs_mut().clear().extend_pairs(rest);
    }
    tls
}

impl Tls {
    fn check(&self, secure: bool) -> Result<(), &'static str> {
        if !secure && *self != Tls::default() {
            return Err("cacertfile, certfile and keyfile need amqps://");
        }
        if self.cert.is_some() != self.key.is_some() {
            return Err("certfile and keyfile are given together");
        }
        let empty = [&self.ca, &self.cert, &self.key].into_iter().flatten().any(|path| path.as_os_str().is_empty());
        if empty { Err("cacertfile, certfile and keyfile each name a file") } else { Ok(()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Address::Amqp(hosts) => {
                let shown: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                f.write_str(&shown.join(","))
            }
        }
    }
}

impl AmqpHost {
    /// Whether it is reached by TLS.
    #[must_use]
    pub fn secure(&self) -> bool {
        self.uri.starts_with(SECURE)
    }
}

impl fmt::Display for AmqpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure() { SECURE } else { PLAIN };
        write!(f, "{scheme}{}", self.label)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for AmqpHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(value: &str) -> Vec<AmqpHost> {
        match value.parse().unwrap() {
            Address::Amqp(hosts) => hosts,
            Address::Sqlite(path) => panic!("{}", path.display()),
        }
    }

    #[test]
    fn a_list_keeps_its_order_and_each_host_its_own_parameters() {
        let hosts = hosts("amqps://u:p%2C%40@a/v?cacertfile=/ca.pem&heartbeat=5&certfile=/c&keyfile=/k, amqps://b:1");
        assert_eq!(hosts[0].uri, "amqps://u:p%2C%40@a/v?heartbeat=5");
        assert_eq!(hosts[0].label, "a:5671/v");
        assert_eq!(hosts[0].tls, Tls { ca: Some("/ca.pem".into()), cert: Some("/c".into()), key: Some("/k".into()) });
        assert_eq!((hosts[1].uri.as_str(), hosts[1].label.as_str()), ("amqps://b:1/%2F", "b:1/%2F"));
        assert_eq!(hosts[1].tls, Tls::default());
    }

    #[test]
    fn the_default_vhost_may_be_written_three_ways() {
        for value in ["amqp://h", "amqp://h/", "amqp://h/%2F"] {
            assert_eq!(hosts(value)[0].uri, "amqp://h/%2F");
        }
        assert_eq!(hosts("amqp://[::1]:99/")[0].label, "[::1]:99/%2F");
        assert_eq!(hosts("amqp://[::1]:99/")[0].name, "::1");
    }

    #[test]
    fn a_password_is_never_shown() {
        for value in ["amqp://u:secret@h", "amqp://u:secret@h,amqp://u:secret@i"] {
            let address: Address = value.parse().unwrap();
            assert!(!format!("{address} {address:?} {:#?}", hosts(value)).contains("secret"));
        }
        let broken =
            ["amqp://u:sec,secret@h", "amqp://u:secret#x@h", "amqp://u:secret@", "amqp://u:se:secret/@h", "u:secret@h"];
        for value in broken {
            let error = value.parse::<Address>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{value}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_write() {
        let refused = |value: &str| value.parse::<Address>().unwrap_err();
        assert_eq!(refused("http://h"), AddressError::Form);
        assert_eq!(refused(""), AddressError::Form);
        assert_eq!(refused("sqlite:"), AddressError::Path);
        assert_eq!(refused("sqlite://host/x"), AddressError::Path);
        assert_eq!(refused("amqp://a,amqps://b"), AddressError::Mixed { position: 2, expected: PLAIN });
        assert_eq!(refused("amqps://a,b"), AddressError::Mixed { position: 2, expected: SECURE });
        assert!(matches!(refused("amqp://"), AddressError::Url { position: 1, .. }));
        for tls in ["amqp://a?cacertfile=/x", "amqps://a?certfile=/x", "amqps://a?cacertfile="] {
            assert!(matches!(refused(tls), AddressError::Tls { position: 1, .. }), "{tls}");
        }
    }

    #[test]
    fn a_file_may_be_relative_absolute_or_a_url() {
        for (value, path) in [("sqlite:q.db", "q.db"), ("sqlite:/a/q.db", "/a/q.db"), ("sqlite:///a/q.db", "/a/q.db")] {
            assert_eq!(value.parse(), Ok(Address::Sqlite(path.into())));
        }
    }

    #[test]
    fn the_embedded_queue_lies_in_the_state_directory() {
        let embedded = |vars: &[(&str, &str)]| {
            Address::embedded(&|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        let at = |path: &str| Ok(Address::Sqlite(PathBuf::from(path)));
        assert_eq!(embedded(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s")]), at("/s/imagewright/queue.db"));
        assert_eq!(embedded(&[("HOME", "/h"), ("XDG_STATE_HOME", "s")]), at("/h/.local/state/imagewright/queue.db"));
        assert_eq!(embedded(&[]), Err(AddressError::NoHome));
    }
}
