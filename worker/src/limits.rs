//! What a message may ask of this worker. Paths and addresses are checked where they are opened.

use imagewright_common::job::{Message, Source, Spec, Visibility};
use imagewright_common::policy::Policy;
use imagewright_common::wire::DecodeError;

/// The first thing that `message` asks and may not.
pub(crate) fn check(message: &Message, policy: &Policy) -> Result<(), DecodeError> {
    let spec = &message.spec;
    refuse_unless(
        policy.clouds.fits(spec.cloud().as_str()),
        "spec.cloud",
        "the policy does not allow this cloud (clouds)",
    )?;
    refuse_unless(policy.names.fits(spec.name().as_str()), "spec.name", "the policy does not allow this name (names)")?;
    match spec {
        // Which server it is, only the cloud can tell.
        Spec::Prune(_) | Spec::Snapshot(_) => Ok(()),
        Spec::Build(build) => {
            let every = build.upload_to.iter().all(|cloud| policy.clouds.fits(cloud.as_str()));
            refuse_unless(every, "spec.upload_to", "the policy does not allow one of these clouds (clouds)")?;
            let proxy = build.proxy.as_ref().is_none_or(|proxy| policy.proxies.fits(proxy.as_str()));
            refuse_unless(proxy, "spec.proxy", "the policy does not allow this proxy (proxies)")
        }
        Spec::BaseImage(_) => {
            let seen = policy.visibilities.contains(&Visibility::Private);
            refuse_unless(
                seen,
                "spec.kind",
                "the policy does not allow private images, as base images are (visibilities)",
            )
        }
        Spec::Upload(upload) => {
            let seen = policy.visibilities.contains(&upload.visibility);
            refuse_unless(seen, "spec.visibility", "the policy does not allow this visibility (visibilities)")?;
            match &upload.source {
                Source::File(_) | Source::Url { .. } => Ok(()),
                Source::Image(image) => {
                    let from = policy.copy_from.fits(image.cloud.as_str());
                    refuse_unless(
                        from,
                        "spec.source.image.cloud",
                        "the policy does not allow copies from this cloud (copy_from)",
                    )
                }
            }
        }
    }
}

fn refuse_unless(allowed: bool, field: &str, reason: &str) -> Result<(), DecodeError> {
    if allowed { Ok(()) } else { Err(DecodeError { field: field.to_owned(), reason: reason.to_owned() }) }
}
