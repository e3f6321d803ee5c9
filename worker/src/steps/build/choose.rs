//! Which base, flavor and network a build takes of those that there are.

use imagewright_common::openstack::{Flavor, Image, Network};
use imagewright_common::store::{revision, stamp};

/// The least that a builder needs, where no flavor is named.
const VCPUS_MIN: u32 = 2;
const RAM_MIN: u64 = 2048;
const DISK_MIN: u64 = 20;

/// The newest that may be built from; before all others one of the preferred project, where there is one: anybody may share
/// an image under any name.
pub(super) fn choose_base(mut images: Vec<Image>, preferred: Option<&str>) -> Option<Image> {
    images.retain(is_sound);
    images.sort_by_key(|image| (preferred.is_some() && image.owner.as_deref() == preferred, revision::order(image)));
    images.pop()
}

/// Whether nothing is left to be done to it. What we make becomes a revision only when it was verified; an image of a
/// server says until then that it is not.
fn is_sound(image: &Image) -> bool {
    if stamp::is_true(image) {
        stamp::is_verified(image)
    } else {
        image.properties.get(stamp::VERIFIED).is_none_or(|digest| digest != "none")
    }
}

/// The flavor of this name or id, else the smallest that is large enough.
pub(super) fn choose_flavor(mut flavors: Vec<Flavor>, wanted: Option<&str>) -> Result<String, String> {
    flavors.retain(|flavor| !flavor.disabled);
    if let Some(wanted) = wanted {
        let found = flavors.iter().find(|flavor| flavor.name == wanted || flavor.id == wanted);
        let names = || flavors.iter().map(|flavor| flavor.name.as_str()).collect::<Vec<_>>().join(", ");
        return found
            .map(|flavor| flavor.id.clone())
            .ok_or_else(|| format!("no flavor {wanted:?}; there are: {}", names()));
    }
    flavors.retain(|flavor| flavor.vcpus >= VCPUS_MIN && flavor.ram >= RAM_MIN && flavor.disk >= DISK_MIN);
    flavors.sort_by(|a, b| (a.vcpus, a.ram, a.disk, &a.id).cmp(&(b.vcpus, b.ram, b.disk, &b.id)));
    flavors.first().map(|flavor| flavor.id.clone()).ok_or_else(|| {
        format!("no flavor has {VCPUS_MIN} processors, {RAM_MIN} MiB of memory and a disk of {DISK_MIN} GiB; name one")
    })
}

/// The network of this name or id, else the project's only one, else the only one there is.
pub(super) fn choose_network(networks: Vec<Network>, wanted: Option<&str>, project: &str) -> Result<String, String> {
    if let Some(wanted) = wanted {
        let mut found = networks.iter().filter(|network| network.name == wanted || network.id == wanted);
        return match (found.next(), found.next()) {
            (Some(network), None) => Ok(network.id.clone()),
            (Some(_), Some(_)) => Err(format!("several networks are called {wanted:?}: give the id of one")),
            (None, _) => Err(format!("no network {wanted:?}; there are: {}", listed(&networks))),
        };
    }
    let usable = || networks.iter().filter(|network| !network.external && !network.subnets.is_empty());
    let own: Vec<&Network> = usable().filter(|network| network.project_id == project).collect();
    let all: Vec<&Network> = usable().collect();
    match (own.as_slice(), all.as_slice()) {
        ([one], _) | (_, [one]) => Ok(one.id.clone()),
        (_, []) => Err("the project has no network with a subnet".to_owned()),
        _ => Err(format!("there are several networks; name one of: {}", listed(&networks))),
    }
}

fn listed(networks: &[Network]) -> String {
    networks.iter().map(|network| network.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
pub(super) mod tests {
    use imagewright_common::openstack::ImageStatus;
    use jiff::Timestamp;

    use super::*;

    fn flavor(name: &str, vcpus: u32, ram: u64, disk: u64) -> Flavor {
        Flavor { id: format!("id-{name}"), name: name.to_owned(), vcpus, ram, disk, disabled: false }
    }

    fn network(name: &str, project: &str, external: bool) -> Network {
        let (id, subnets) = (format!("id-{name}"), vec!["s".to_owned()]);
        Network { id, name: name.to_owned(), project_id: project.to_owned(), external, subnets }
    }

    pub(in crate::steps::build) fn image(id: &str, owner: &str, minute: u32, properties: &[(&str, &str)]) -> Image {
        let at: Timestamp = format!("2026-11-23T10:{minute:02}:00Z").parse().unwrap();
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Image {
            id: id.to_owned(),
            name: Some("base".to_owned()),
            status: ImageStatus::Active,
            owner: Some(owner.to_owned()),
            visibility: "private".to_owned(),
            size: Some(1),
            disk_format: None,
            container_format: None,
            checksum: None,
            os_hash_algo: Some("sha512".to_owned()),
            os_hash_value: Some("d1".to_owned()),
            os_hidden: false,
            protected: false,
            created_at: at,
            updated_at: at,
            architecture: None,
            properties: properties.collect(),
        }
    }

    fn base(images: Vec<Image>, preferred: Option<&str>) -> Option<String> {
        choose_base(images, preferred).map(|image| image.id)
    }

    #[test]
    fn what_is_not_verified_is_no_base() {
        let verified = image("verified", "p", 1, &[(stamp::SELF, "verified"), (stamp::VERIFIED, "d1")]);
        let sent = image("sent", "p", 2, &[(stamp::SELF, "sent")]);
        let wrong = image("wrong", "p", 3, &[(stamp::SELF, "wrong"), (stamp::VERIFIED, "d2")]);
        let unchecked = image("unchecked", "p", 4, &[(stamp::SELF, "none"), (stamp::VERIFIED, "none")]);
        let all = vec![sent.clone(), verified, wrong, unchecked.clone()];
        assert_eq!(base(all, None).as_deref(), Some("verified"));
        assert_eq!(base(vec![sent, unchecked], None), None);
        // Somebody's own image of a server that was booted from one of ours.
        let own = image("own", "p", 5, &[(stamp::SELF, "verified"), (stamp::VERIFIED, "d1")]);
        assert_eq!(base(vec![own], None).as_deref(), Some("own"));
    }

    #[test]
    fn a_release_is_that_of_the_own_project_and_of_others_only_without_one() {
        let (own, shared) = (image("own", "p", 1, &[]), image("shared", "q", 2, &[]));
        assert_eq!(base(vec![own.clone(), shared.clone()], Some("p")).as_deref(), Some("own"));
        assert_eq!(base(vec![own, shared.clone()], None).as_deref(), Some("shared"));
        assert_eq!(base(vec![shared], Some("p")).as_deref(), Some("shared"));
    }

    #[test]
    fn names_are_taken_exactly_as_typed() {
        let flavors = vec![flavor("m1.large", 4, 8192, 80), flavor("M1.Large", 8, 16384, 80)];
        assert_eq!(choose_flavor(flavors.clone(), Some("M1.Large")).unwrap(), "id-M1.Large");
        assert!(choose_flavor(flavors, Some("M1.LARGE")).unwrap_err().contains("m1.large, M1.Large"));
        let networks = vec![network("Net", "p", false), network("net", "p", false)];
        assert_eq!(choose_network(networks, Some("Net"), "p").unwrap(), "id-Net");
    }

    #[test]
    fn without_a_name_the_smallest_that_fits() {
        let flavors = vec![flavor("big", 8, 8192, 80), flavor("tiny", 1, 512, 5), flavor("right", 2, 4096, 20)];
        assert_eq!(choose_flavor(flavors, None).unwrap(), "id-right");
        assert!(choose_flavor(vec![flavor("tiny", 1, 512, 5)], None).unwrap_err().contains("name one"));
    }

    #[test]
    fn without_a_name_the_only_network() {
        let own = network("own", "p", false);
        let shared = network("shared", "q", false);
        let outside = network("outside", "q", true);
        assert_eq!(choose_network(vec![shared.clone(), own, outside.clone()], None, "p").unwrap(), "id-own");
        assert_eq!(choose_network(vec![shared.clone(), outside], None, "p").unwrap(), "id-shared");
        let both = vec![shared, network("other", "q", false)];
        assert!(choose_network(both, None, "p").unwrap_err().contains("shared, other"));
    }
}
