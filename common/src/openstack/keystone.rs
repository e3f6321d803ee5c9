//! Keystone API v3: `POST /v3/auth/tokens` (API reference: "Authentication and token management").

use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::catalog::Catalog;
use super::config::{ApplicationCredentialId, Auth, CloudConfig, Domain, ProjectScope, Scope, User};
use super::error::{CloudError, CloudErrorKind};

/// A token is renewed when less than this remains, or a fifth of its life if that is shorter.
const RENEW_BEFORE: Duration = Duration::from_secs(10 * 60);

/// Where tokens are made. API v3 lives at `/v3` beneath whatever `auth_url` names.
fn tokens_url(auth_url: &Url) -> Url {
    let mut url = auth_url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let root = url.path().trim_end_matches('/').to_owned();
    let root = root.strip_suffix("/v3").or(root.strip_suffix("/v2.0")).unwrap_or(&root);
    url.set_path(&format!("{root}/v3/auth/tokens"));
    url
}

impl CloudConfig {
    /// Where and with what body this cloud is asked for a token (`POST`). It holds the secret: it is for
    /// Keystone, and for holding it against another client's, never for a log.
    pub fn token_request(&self) -> (Url, Value) {
        (tokens_url(&self.auth_url), request(&self.auth))
    }
}

fn request(auth: &Auth) -> Value {
    let (method, data, scope) = match auth {
        Auth::Password { user, password, scope } => {
            let mut user = user_json(user);
            user["password"] = json!(password.expose_secret());
            ("password", json!({ "user": user }), scope_json(scope))
        }
        Auth::ApplicationCredential { id, secret } => {
            let mut data = match id {
                ApplicationCredentialId::Id(id) => json!({ "id": id }),
                ApplicationCredentialId::Name(name, user) => json!({ "name": name, "user": user_json(user) }),
            };
            data["secret"] = json!(secret.expose_secret());
            ("application_credential", data, None)
        }
        Auth::Token { token, scope } => ("token", json!({ "id": token.expose_secret() }), scope_json(scope)),
    };
    let mut auth = json!({ "identity": { "methods": [method], method: data } });
    if let Some(scope) = scope {
        auth["scope"] = scope;
    }
    json!({ "auth": auth })
}

/// The secret of the configuration, to be blotted out of what a cloud answers.
pub(super) fn secret(auth: &Auth) -> &str {
    match auth {
        Auth::Password { password, .. } => password.expose_secret(),
        Auth::ApplicationCredential { secret, .. } => secret.expose_secret(),
        Auth::Token { token, .. } => token.expose_secret(),
    }
}

fn user_json(user: &User) -> Value {
    match user {
        User::Id(id) => json!({ "id": id }),
        User::Name(name, domain) => json!({ "name": name, "domain": domain_json(domain) }),
    }
}

fn domain_json(domain: &Domain) -> Value {
    match domain {
        Domain::Id(id) => json!({ "id": id }),
        Domain::Name(name) => json!({ "name": name }),
    }
}

fn scope_json(scope: &Scope) -> Option<Value> {
    match scope {
        Scope::Unscoped => None,
        Scope::Project(ProjectScope::Id(id)) => Some(json!({ "project": { "id": id } })),
        Scope::Project(ProjectScope::Name(name, domain)) => {
            Some(json!({ "project": { "name": name, "domain": domain_json(domain) } }))
        }
        Scope::Domain(domain) => Some(json!({ "domain": domain_json(domain) })),
    }
}

/// A token, what it opens, and how long it lasts. Times are counted from the moment the answer came, so that
/// our clock need not agree with Keystone's.
pub(crate) struct Token {
    pub(super) secret: SecretString,
    pub(super) catalog: Catalog,
    pub(super) project_id: Option<String>,
    issued_at: Timestamp,
    received: Instant,
    life: Duration,
}

#[derive(Deserialize)]
struct Body {
    token: BodyToken,
}

#[derive(Deserialize)]
struct BodyToken {
    issued_at: Timestamp,
    expires_at: Timestamp,
    #[serde(default)]
    project: Option<BodyProject>,
    #[serde(default)]
    catalog: Catalog,
}

#[derive(Deserialize)]
struct BodyProject {
    id: String,
}

impl Token {
    /// Reads Keystone's answer: the token from the header `X-Subject-Token`, the rest from the body.
    pub(super) fn parse(secret: SecretString, body: &[u8]) -> Result<Token, serde_json::Error> {
        let Body { token } = serde_json::from_slice(body)?;
        let life = Duration::try_from(token.expires_at.duration_since(token.issued_at)).unwrap_or_default();
        Ok(Token {
            secret,
            catalog: token.catalog,
            project_id: token.project.map(|project| project.id),
            issued_at: token.issued_at,
            received: Instant::now(),
            life,
        })
    }

    /// Whether there is time left for an ordinary call.
    pub(super) fn is_fresh(&self) -> bool {
        self.remaining() > RENEW_BEFORE.min(self.life / 5)
    }

    /// Whether a transfer may start with it: Glance checks the token when the body starts and may use it
    /// again, for its store, when the body ends.
    pub(super) fn is_fresh_for_transfer(&self) -> bool {
        self.remaining() >= RENEW_BEFORE.min(self.life * 4 / 5)
    }

    fn remaining(&self) -> Duration {
        self.life.saturating_sub(self.received.elapsed())
    }

    /// What Keystone's clock shows now.
    pub(super) fn server_time(&self) -> Timestamp {
        self.issued_at.checked_add(self.received.elapsed()).unwrap_or(self.issued_at)
    }
}

/// What a refusal of Keystone means: the status alone would say something else about an image.
pub(super) fn refusal(mut error: CloudError) -> CloudError {
    error.kind = match error.kind {
        CloudErrorKind::Forbidden | CloudErrorKind::Conflict => CloudErrorKind::Credentials,
        CloudErrorKind::NotFound | CloudErrorKind::Gone | CloudErrorKind::Rejected => CloudErrorKind::Config,
        kind @ (CloudErrorKind::Unreachable
        | CloudErrorKind::Server
        | CloudErrorKind::Busy
        | CloudErrorKind::Credentials
        | CloudErrorKind::Protocol
        | CloudErrorKind::Config) => kind,
    };
    if error.kind == CloudErrorKind::Config {
        error.message.push_str("; check auth_url and the auth section of this cloud in clouds.yaml");
    }
    error
}
