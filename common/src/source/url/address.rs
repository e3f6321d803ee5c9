//! Which addresses are public (IANA special-purpose registries), and a resolver that gives no others.

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::policy;

/// A name that leads to private addresses only.
#[derive(Debug, thiserror::Error)]
#[error("its host leads to {0}, which is not public; only a --url-host that names it exactly allows that")]
pub(super) struct Private(IpAddr);

/// Resolves names to public addresses. reqwest connects to what it is given here and asks no second time.
pub(super) struct Public {
    /// Names of proxies.
    pub(super) except: Vec<String>,
}

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        let free = self.except.contains(&policy::plain(name.as_str()));
        Box::pin(async move {
            let found = resolve(name.as_str()).await?;
            let found = if free { found } else { public_only(found)? };
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// All addresses of a name.
pub(super) async fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host((name, 0)).await?.collect())
}

/// The public ones among `found`.
pub(super) fn public_only(found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Private> {
    let (public, private): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| is_public(address.ip()));
    match private.first() {
        Some(address) if public.is_empty() => Err(Private(address.ip())),
        Some(_) | None => Ok(public),
    }
}

/// Whether `ip` is public.
///
/// # Errors
/// The reason if it is not.
pub(super) fn check(ip: IpAddr) -> Result<(), String> {
    if is_public(ip) { Ok(()) } else { Err(Private(ip).to_string()) }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// Everything outside of the IANA IPv4 Special-Purpose Address Registry, multicast and the reserved class E.
fn is_public_v4(ip: Ipv4Addr) -> bool {
    let special = match ip.octets() {
        [0 | 10 | 127 | 224..=255, ..] => true,
        [100, second, ..] => second & 0xc0 == 0x40,
        [169, 254, ..] | [192, 168, ..] | [192, 0, 0 | 2, _] | [192, 88, 99, _] => true,
        [172, second, ..] => second & 0xf0 == 0x10,
        [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => true,
        [_, _, _, _] => false,
    };
    !special
}

/// Global unicast without its special ranges; an address that carries an IPv4 one is as public as that.
fn is_public_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(embedded(high, low)),
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        [0x2001, second, ..] if second < 0x200 || second == 0xdb8 => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

fn embedded(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low))
}
