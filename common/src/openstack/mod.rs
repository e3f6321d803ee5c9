//! OpenStack, as much of it as we use: `clouds.yaml` and tokens ([`config`], [`Session`]) and images
//! ([`Glance`]). Everything a cloud answers becomes a value or a [`CloudError`], whose kind says what to do
//! next.
//!
//! There is no trait to fake: tests speak to a real socket, so that expired tokens, 409, 429 and 503 run
//! through the code that runs in production.

mod catalog;
pub mod config;
mod error;
mod glance;
mod http;
mod keystone;
mod message;
mod neutron;
mod nova;
mod session;

pub use config::{Auth, CloudConfig, Clouds, ConfigError, Domain, Interface, Scope};
pub use error::{CloudError, CloudErrorKind};
pub use glance::{Deletion, Glance, Image, ImageData, ImageQuery, ImageStatus, NewImage, Observed};
pub use neutron::{Network, Neutron, Port, SecurityGroup};
pub use nova::{Address, Fault, Flavor, NewServer, Nova, Server};
pub use session::Session;

/// Go down from an endpoint, segment by segment; each is escaped.
fn beneath(url: &mut url::Url, path: &[&str]) {
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
