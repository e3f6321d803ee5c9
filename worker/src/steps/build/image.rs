//! From a server that is off to a revision, and its copies.

use imagewright_common::job::{CloudName, DiskFormat, ImageRef, Message, Source, Spec, UploadSpec, Visibility};
use imagewright_common::openstack::{CloudErrorKind, Image};
use imagewright_common::store::snapshot::{self, Snapshot};
use imagewright_common::store::stamp;
use serde_json::json;
use std::time::Duration;

use super::manifest::PACKAGES;
use super::plan::rejected;
use super::state::Phase;
use super::unchanged::INPUTS;
use super::{Build, Failure, Next, Sort};
use crate::steps::failure::cloud;
use crate::steps::{child, prune_child};
use crate::verdict::Ended;

impl Build<'_> {
    pub(super) async fn snapshot(&mut self) -> Result<Ended, Failure> {
        // Somebody who came late may have started it again, and it is clean no more.
        if self.state.asked == 0 && self.server().await?.status != "SHUTOFF" && !self.is_asked_for().await? {
            self.state.cleaning = false;
            return self.enter(Phase::Clean);
        }
        let server = self.state.server.clone().unwrap_or_default();
        let properties = self.properties();
        let name = self.spec.name.as_str();
        let asked = &mut self.state.asked;
        match snapshot::make(&self.nova, &self.glance, &server, name, &properties, asked).await? {
            Snapshot::Underway(why) => self.wait(format!("the image is made: {why}")),
            Snapshot::Broken(why) => self.fail(why, None),
            Snapshot::Whole(image) => {
                self.state.image = Some(image.id);
                self.enter(if self.spec.check.is_some() { Phase::CheckBoot } else { Phase::Publish })
            }
        }
    }

    /// The image becomes a revision here, and goes to the other clouds.
    pub(super) async fn publish(&mut self) -> Result<Ended, Failure> {
        let image = self.image().await?;
        let plan = self.planned()?;
        let mut properties = self.properties();
        properties.insert(INPUTS.to_owned(), plan.inputs.clone());
        properties.insert("imagewright_base".to_owned(), self.spec.base.to_string());
        properties.insert("imagewright_base_digest".to_owned(), plan.base_digest.clone());
        properties.insert("imagewright_template_digest".to_owned(), plan.template.clone());
        if let Some(runner) = &plan.runner {
            properties.insert("imagewright_runner_version".to_owned(), runner.version.clone());
        }
        if let Some(digest) = self.packages() {
            properties.insert(PACKAGES.to_owned(), digest.to_owned());
        }
        if let Some(digest) = &plan.script {
            properties.insert("imagewright_script_digest".to_owned(), digest.clone());
        }
        properties.insert("architecture".to_owned(), self.spec.arch.glance().to_owned());
        snapshot::publish(&self.glance, &image, &properties).await?;
        let destinations: Vec<CloudName> = self.destinations().cloned().collect();
        let children = self.copies(&image.id, &destinations);
        self.state.children = children.iter().map(|child| child.id).collect();
        self.state.enter(Phase::Teardown);
        Next { after: Duration::ZERO, why: "teardown is next".to_owned(), children }.with(self.message, &self.state)
    }

    /// Where copies go.
    pub(super) fn destinations(&self) -> impl Iterator<Item = &CloudName> {
        self.spec.upload_to.iter().filter(|cloud| **cloud != self.spec.cloud)
    }

    pub(super) fn copies(&self, image: &str, clouds: &[CloudName]) -> Vec<Message> {
        let spec = |cloud: &CloudName| {
            Spec::Upload(UploadSpec {
                name: self.spec.name.clone(),
                arch: self.spec.arch,
                cloud: cloud.clone(),
                keep: self.spec.keep,
                source: Source::Image(ImageRef { cloud: self.spec.cloud.clone(), id: image.to_owned() }),
                disk_format: DiskFormat::Auto,
                properties: std::collections::BTreeMap::new(),
                visibility: Visibility::Private,
            })
        };
        clouds.iter().map(|cloud| child(self.message, cloud, spec(cloud))).collect()
    }

    /// Nothing of the build is left on its cloud, and it ends: well, or as it had failed.
    pub(super) async fn end(&mut self) -> Result<Ended, Failure> {
        if self.state.failure.is_some() {
            self.drop_image().await?;
        }
        let left = self.tear_down().await?;
        if !left.is_empty() && !self.is_late() {
            return self.look_again(format!("until it is gone: {}", left.join(", ")));
        }
        if let Some(before) = self.ended_before() {
            return Ok(Ended::Before(before));
        }
        let leftovers = if left.is_empty() { String::new() } else { format!("; left behind: {}", left.join(", ")) };
        if let Some(fault) = &self.state.failure {
            let sort = Sort::Rejected { field: fault.field.clone() };
            return Err(Failure::plain(sort, format!("{}{leftovers}", fault.error)));
        }
        let image = self.image().await?;
        let prune = prune_child(self.message, &self.spec.name, &self.spec.cloud, self.spec.keep, self.spec.arch);
        let mut children = self.state.children.clone();
        children.push(prune.id);
        let result = json!({
            "image_id": image.id,
            "size": image.size,
            "disk_format": image.disk_format,
            "os_hash_algo": image.os_hash_algo,
            "os_hash_value": image.os_hash_value,
            "children": children,
            "left_behind": left,
        });
        Ok(Ended::Succeeded { result, children: vec![prune] })
    }

    /// The image that this build has made a revision already. Its message may come twice, when a worker dies between
    /// sending the next step and giving back the one before, and the two may go on at once: one of them comes last.
    pub(super) async fn published(&self) -> Result<Option<Image>, Failure> {
        Ok(snapshot::published(&self.glance, &self.message.id.to_string()).await?)
    }

    /// The image of this build, or the one that it found.
    pub(super) async fn image(&self) -> Result<Image, Failure> {
        let id = self.state.image.as_deref().unwrap_or_default();
        match self.glance.get(id).await {
            Ok(image) => Ok(image.value),
            Err(error) if error.kind == CloudErrorKind::NotFound => {
                Err(rejected("spec.cloud", format!("image {id} was deleted by somebody else before the build ended")))
            }
            Err(error) => Err(cloud(error)),
        }
    }

    /// What is left where the image is a revision already: to say so, and to clear away.
    pub(super) fn go_by(&mut self, image: Image) -> Result<Ended, Failure> {
        self.state.failure = None;
        self.state.image = Some(image.id);
        self.enter(Phase::Publish)
    }

    /// Whether the image was asked for, by whomever.
    pub(super) async fn is_asked_for(&self) -> Result<bool, Failure> {
        let Some(server) = &self.state.server else { return Ok(false) };
        Ok(snapshot::find(&self.glance, server, &self.message.id.to_string()).await?.is_some())
    }

    /// An image that is no revision, and will be none.
    pub(super) async fn drop_image(&self) -> Result<(), Failure> {
        let Some(server) = &self.state.server else { return Ok(()) };
        if let Some(image) = snapshot::find(&self.glance, server, &self.message.id.to_string()).await?
            && !stamp::is_verified(&image)
        {
            self.glance.delete(&image.id).await.map_err(cloud)?;
        }
        Ok(())
    }
}
