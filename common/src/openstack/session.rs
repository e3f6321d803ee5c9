//! One logged-in cloud: the token and its renewal, the catalog, and sending with both.

use std::fmt;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Method, Response};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;
use tokio::time::timeout;
use url::Url;

use super::config::CloudConfig;
use super::error::{CloudError, CloudErrorKind, Place};
use super::http::{self, Answer, Clients};
use super::keystone::{self, Token};

const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const OPENSTACK_API_VERSION: HeaderName = HeaderName::from_static("openstack-api-version");
const X_SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

/// A logged-in cloud. One per cloud and process: clones share the token. Nothing is sent before it is needed.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    config: CloudConfig,
    clients: Clients,
    login: Mutex<Login>,
    /// See [`Session::accepted`].
    accepted: SyncMutex<Option<bool>>,
}

/// Held locked while logging in, so that many callers make one request for a token.
#[derive(Default)]
struct Login {
    token: Option<Arc<Token>>,
    /// When the last attempt ended in vain, and why: for those who waited for that very attempt.
    refused: Option<(Instant, CloudError)>,
}

/// A call that carries no image.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    /// Content type and body.
    pub(crate) body: Option<(&'static str, Bytes)>,
    /// Whether it may be sent again when it is not known to have arrived.
    pub(crate) repeatable: bool,
    /// The microversion that is asked for, as in `compute 2.45`.
    pub(crate) version: Option<&'static str>,
}

impl Call {
    /// A call without a body, which may be repeated.
    pub(crate) fn plain(method: Method, url: Url) -> Call {
        Call { method, url, body: None, repeatable: true, version: None }
    }

    /// A call with a JSON body, which may not be repeated.
    pub(crate) fn json(method: Method, url: Url, body: &serde_json::Value) -> Call {
        let body = Some(("application/json", Bytes::from(body.to_string())));
        Call { method, url, body, repeatable: false, version: None }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Session").field("cloud", &self.cloud()).finish_non_exhaustive()
    }
}

impl Session {
    /// Prepares the connection to a cloud: reads the CA file and client certificate, sends nothing.
    pub fn new(config: CloudConfig) -> Result<Session, CloudError> {
        let clients = Clients::new(&config)?;
        let (login, accepted) = (Mutex::default(), SyncMutex::default());
        Ok(Session { inner: Arc::new(Inner { config, clients, login, accepted }) })
    }

    /// The cloud's name in `clouds.yaml`.
    pub fn cloud(&self) -> &str {
        &self.inner.config.name
    }

    /// Whether Keystone accepted our credentials when it last answered; none while it has not.
    pub fn accepted(&self) -> Option<bool> {
        *self.inner.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, accepted: bool) {
        *self.inner.accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some(accepted);
    }

    /// The id of the project the token is for. Images made with it have this `owner`.
    pub async fn project_id(&self) -> Result<String, CloudError> {
        let token = self.token().await?;
        token.project_id.clone().ok_or_else(|| {
            let text = "the token is for no project: set auth.project_name in clouds.yaml";
            self.place("find the project").error(CloudErrorKind::Config, text)
        })
    }

    /// Whether the cloud has a service, such as `compute`, in our region.
    pub async fn has_service(&self, service_type: &str) -> Result<bool, CloudError> {
        if self.inner.config.endpoint_override(service_type).is_some() {
            return Ok(true);
        }
        let token = self.token().await?;
        Ok(token.catalog.has(service_type, self.region(service_type)))
    }

    /// The address of a service: the override of `clouds.yaml`, else the catalog's for region and interface.
    pub(crate) async fn endpoint(&self, service_type: &str) -> Result<Url, CloudError> {
        let config = &self.inner.config;
        if let Some(endpoint) = config.endpoint_override(service_type) {
            return Ok(endpoint.clone());
        }
        let own = config.services.get(service_type).and_then(|service| service.interface);
        let interface = own.unwrap_or(config.interface);
        let region = self.region(service_type);
        let token = self.token().await?;
        token.catalog.endpoint(service_type, interface, region).ok_or_else(|| {
            let region = region.map(|region| format!(" in region {region}")).unwrap_or_default();
            let text = format!(
                "the catalog has no {} endpoint{region}: check region_name, interface and the project",
                interface.as_str()
            );
            self.place(&format!("find the {service_type} service")).error(CloudErrorKind::Config, text)
        })
    }

    fn region(&self, service_type: &str) -> Option<&str> {
        let config = &self.inner.config;
        let own = config.services.get(service_type).and_then(|service| service.region.as_deref());
        own.or(config.region.as_deref())
    }

    /// What a clock of this cloud shows: the one of the answer, or Keystone's where a server tells no time.
    /// Never ours. Keystone's is what it said with the token, plus the time that has passed here since.
    pub(crate) async fn server_time(&self, answer: &Answer) -> Result<Timestamp, CloudError> {
        match answer.date() {
            Some(date) => Ok(date),
            None => Ok(self.token().await?.server_time()),
        }
    }

    /// Makes a call and reads the answer. A token that the service refuses is renewed once; a call that finds
    /// no connection is repeated once if it may be.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, CloudError> {
        let place = self.place(&format!("{} {}", call.method, call.url.path()));
        let token = self.token().await?;
        match self.call_with(&token, call, &place).await {
            Err(error) if error.status == Some(401) => {
                let token = self.token_instead_of(&token).await?;
                self.call_with(&token, call, &place).await
            }
            result => result,
        }
    }

    async fn call_with(&self, token: &Token, call: &Call, place: &Place) -> Result<Answer, CloudError> {
        let request = || {
            let request = self.inner.clients.api.request(call.method.clone(), call.url.clone());
            let mut request = request.header(X_AUTH_TOKEN, sensitive(&token.secret));
            if let Some(version) = call.version {
                request = request.header(OPENSTACK_API_VERSION, version);
            }
            match &call.body {
                Some((kind, body)) => request.header(CONTENT_TYPE, *kind).body(body.clone()),
                None => request,
            }
        };
        http::send(&request, call.repeatable, place, &self.secrets(token)).await
    }

    /// Begins to read the body of an answer, without a limit in time once it has begun.
    pub(crate) async fn download(&self, url: &Url) -> Result<(Response, Place), CloudError> {
        let place = self.place(&format!("GET {}", url.path()));
        let token = self.token().await?;
        let response = match self.download_with(&token, url, &place).await {
            Err(error) if error.status == Some(401) => {
                let token = self.token_instead_of(&token).await?;
                self.download_with(&token, url, &place).await?
            }
            result => result?,
        };
        Ok((response, place))
    }

    async fn download_with(&self, token: &Token, url: &Url, place: &Place) -> Result<Response, CloudError> {
        let request = self.inner.clients.data.get(url.clone()).header(X_AUTH_TOKEN, sensitive(&token.secret));
        match timeout(http::CALL_TIMEOUT, http::begin(request, place, &self.secrets(token))).await {
            Ok(begun) => begun,
            Err(_) => {
                let seconds = http::CALL_TIMEOUT.as_secs();
                Err(place.error(CloudErrorKind::Unreachable, format!("no answer for {seconds} s")))
            }
        }
    }

    /// Sends a body that cannot be sent twice, without a limit in time, with a token that has enough left. A
    /// refused token is forgotten, so that the next attempt gets another.
    pub(crate) async fn upload(
        &self,
        url: Url,
        headers: &[(HeaderName, HeaderValue)],
        body: reqwest::Body,
    ) -> Result<(), CloudError> {
        let place = self.place(&format!("PUT {}", url.path()));
        let token = self.token_if(Token::is_fresh_for_transfer).await?;
        let mut request = self.inner.clients.data.put(url).header(X_AUTH_TOKEN, sensitive(&token.secret));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let result = http::begin(request.body(body), &place, &self.secrets(&token)).await;
        if result.as_ref().is_err_and(|error| error.status == Some(401)) {
            self.forget(&token).await;
        }
        result.map(drop)
    }

    fn place(&self, operation: &str) -> Place {
        Place { cloud: self.cloud().to_owned(), operation: operation.to_owned() }
    }

    /// What must not appear in an error.
    fn secrets<'a>(&'a self, token: &'a Token) -> [&'a str; 2] {
        [token.secret.expose_secret(), keystone::secret(&self.inner.config.auth)]
    }

    async fn token_instead_of(&self, refused: &Arc<Token>) -> Result<Arc<Token>, CloudError> {
        self.forget(refused).await;
        self.token().await
    }

    async fn token(&self) -> Result<Arc<Token>, CloudError> {
        self.token_if(Token::is_fresh).await
    }

    /// The token, renewed unless it passes.
    async fn token_if(&self, passes: fn(&Token) -> bool) -> Result<Arc<Token>, CloudError> {
        let asked = Instant::now();
        let mut login = self.inner.login.lock().await;
        if let Some(token) = login.token.as_ref().filter(|token| passes(token)) {
            return Ok(Arc::clone(token));
        }
        if let Some((_, error)) = login.refused.as_ref().filter(|(when, _)| *when > asked) {
            return Err(error.clone());
        }
        match self.authenticate().await {
            Ok(token) => {
                self.answered(true);
                let token = Arc::new(token);
                *login = Login { token: Some(Arc::clone(&token)), refused: None };
                Ok(token)
            }
            Err(error) => {
                if error.kind == CloudErrorKind::Credentials {
                    self.answered(false);
                }
                login.refused = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Drops a token that was refused, unless someone has renewed it already.
    async fn forget(&self, refused: &Arc<Token>) {
        let mut login = self.inner.login.lock().await;
        if login.token.as_ref().is_some_and(|token| Arc::ptr_eq(token, refused)) {
            login.token = None;
        }
    }

    async fn authenticate(&self) -> Result<Token, CloudError> {
        let config = &self.inner.config;
        let (url, body) = config.token_request();
        let place = self.place(&format!("POST {}", url.path()));
        let body = body.to_string();
        let request = || {
            let request = self.inner.clients.api.post(url.clone()).header(CONTENT_TYPE, "application/json");
            request.body(body.clone())
        };
        let secrets = [keystone::secret(&config.auth)];
        let answer = http::send(&request, true, &place, &secrets).await.map_err(keystone::refusal)?;
        let token = answer.headers.get(X_SUBJECT_TOKEN).and_then(|token| token.to_str().ok());
        let token = token.ok_or_else(|| answer.protocol("the answer has no X-Subject-Token"))?;
        let token = SecretString::from(token);
        Token::parse(token, answer.body()).map_err(|_| answer.protocol("the answer describes no token"))
    }
}

/// A header value that reqwest never shows in its logs.
fn sensitive(secret: &SecretString) -> HeaderValue {
    let mut value = HeaderValue::from_str(secret.expose_secret()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}
