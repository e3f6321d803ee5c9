//! What is known about one cloud once everything is merged.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

/// How to reach one cloud and log in to it.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// The name in `clouds.yaml`.
    pub name: String,
    /// Who we are.
    pub auth: Auth,
    /// Keystone, with or without `/v3`.
    pub auth_url: Url,
    /// The region; without it the first endpoint of the catalog is taken.
    pub region: Option<String>,
    /// Which endpoints of the catalog are used.
    pub interface: Interface,
    /// Whether TLS certificates are checked.
    pub verify: bool,
    /// A PEM file of the only certificate authorities that are trusted, instead of those of the system.
    pub cacert: Option<PathBuf>,
    /// A PEM file of our certificate, and one of its key unless that is in the same file.
    pub client_cert: Option<(PathBuf, Option<PathBuf>)>,
    /// What is different for one service, by service type (`image`, `compute`, `network`).
    pub services: BTreeMap<String, ServiceConfig>,
}

impl CloudConfig {
    /// The endpoint to use for a service type instead of the catalog's.
    pub fn endpoint_override(&self, service_type: &str) -> Option<&Url> {
        self.services.get(service_type)?.endpoint_override.as_ref()
    }
}

/// What is different for one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Used instead of the catalog's endpoint.
    pub endpoint_override: Option<Url>,
    /// Used instead of the cloud's interface.
    pub interface: Option<Interface>,
    /// Used instead of the cloud's region.
    pub region: Option<String>,
}

/// The three kinds of endpoint in a Keystone catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// For everyone; the default.
    Public,
    /// For the cloud's own network.
    Internal,
    /// For the cloud's operators.
    Admin,
}

impl Interface {
    /// Reads `public` and the older `publicURL`, and so on.
    pub fn parse(text: &str) -> Option<Interface> {
        match text.trim_end_matches("URL") {
            "public" => Some(Interface::Public),
            "internal" => Some(Interface::Internal),
            "admin" => Some(Interface::Admin),
            _ => None,
        }
    }

    /// The word the Keystone catalog uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Interface::Public => "public",
            Interface::Internal => "internal",
            Interface::Admin => "admin",
        }
    }
}

/// Who we are: the methods of Keystone's API v3 that we speak. Secrets are redacted in `Debug`.
#[derive(Clone, Debug)]
pub enum Auth {
    /// `auth_type` `password` or `v3password`.
    Password {
        /// The user.
        user: User,
        /// The user's password.
        password: SecretString,
        /// What the token is for.
        scope: Scope,
    },
    /// `auth_type` `v3applicationcredential`; its project is fixed when it is made.
    ApplicationCredential {
        /// The credential's id, or its name with its user.
        id: ApplicationCredentialId,
        /// The credential's secret.
        secret: SecretString,
    },
    /// `auth_type` `token` or `v3token`: a token that someone else got. It cannot outlive that one.
    Token {
        /// The token.
        token: SecretString,
        /// What the new token is for.
        scope: Scope,
    },
}

/// An application credential is named by its id, or by a name that is unique for its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplicationCredentialId {
    /// `application_credential_id`.
    Id(String),
    /// `application_credential_name` and its user.
    Name(String, User),
}

/// A user, by id or by name in a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum User {
    /// `user_id`.
    Id(String),
    /// `username`, with `user_domain_id` or `user_domain_name`.
    Name(String, Domain),
}

/// A domain, by id or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Domain {
    /// An id, such as `default`.
    Id(String),
    /// A name, such as `Default`.
    Name(String),
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The user's default project, or nothing.
    Unscoped,
    /// One project.
    Project(ProjectScope),
    /// One domain.
    Domain(Domain),
}

/// A project, by id or by name in a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProjectScope {
    /// `project_id`.
    Id(String),
    /// `project_name`, with `project_domain_id` or `project_domain_name`.
    Name(String, Domain),
}
