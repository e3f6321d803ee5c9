//! Merging, without openstacksdk at hand; the integration tests compare with it.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use secrecy::ExposeSecret;

const AUTH: &str = "auth: {auth_url: 'https://k:5000', username: u, password: s3cret, user_domain_id: d, \
                    project_name: p, project_domain_id: d}";

/// The clouds of these files, in a folder that is both home and working directory.
fn clouds(files: &[(&str, &str)], env: &[(&str, &str)]) -> Result<Clouds, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let mut env: BTreeMap<String, String> = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    env.insert("HOME".to_owned(), folder.path().display().to_string());
    Clouds::load_from(&|name| env.get(name).cloned(), folder.path())
}

fn one(files: &[(&str, &str)]) -> CloudConfig {
    clouds(files, &[]).unwrap().get("c").unwrap()
}

fn error(more: &str) -> String {
    let text = format!("clouds: {{c: {{{more}}}}}");
    clouds(&[("clouds.yaml", &text)], &[]).unwrap().get("c").unwrap_err().to_string()
}

#[test]
fn secrets_lie_over_from_a_file_of_their_own() {
    let main = "clouds: {c: {auth: {auth_url: 'https://k', username: u, user_domain_id: d}, region_name: R}}";
    let secure = "clouds: {c: {auth: {password: 007}}}";
    let cloud = one(&[("clouds.yaml", main), (".config/openstack/secure.yaml", secure)]);
    let Auth::Password { user, password, scope } = &cloud.auth else { panic!("{cloud:?}") };
    assert_eq!(*user, User::Name("u".to_owned(), Domain::Id("d".to_owned())));
    assert_eq!((password.expose_secret(), scope), ("007", &Scope::Unscoped));
    assert_eq!((cloud.region.as_deref(), cloud.interface, cloud.verify), (Some("R"), Interface::Public, true));
}

#[test]
fn a_profile_lies_beneath_and_a_region_over() {
    let main = format!("clouds: {{c: {{profile: v, {AUTH}, verify: no}}}}");
    let public = "public-clouds: {v: {auth: {auth_url: 'https://ignored'}, interface: internalURL, \
                  regions: [{name: r1, values: {image_endpoint_override: 'https://{region_name}.example/v2'}}, r2]}}";
    let cloud = one(&[("clouds.yaml", &main), ("clouds-public.yaml", public)]);
    assert_eq!((cloud.region.as_deref(), cloud.interface, cloud.verify), (Some("r1"), Interface::Internal, false));
    assert_eq!(cloud.endpoint_override("image").unwrap().as_str(), "https://r1.example/v2");
    assert_eq!(cloud.auth_url.as_str(), "https://k:5000/");
}

#[test]
fn variables_make_a_cloud_of_their_own() {
    let main = format!("clouds: {{c: {{{AUTH}}}}}");
    let env = [("OS_AUTH_URL", "https://e"), ("OS_AUTH_TYPE", "v3applicationcredential"), ("OS_REGION_NAME", "E")];
    let secret = [("OS_APPLICATION_CREDENTIAL_ID", "i"), ("OS_APPLICATION_CREDENTIAL_SECRET", "s3cret")];
    let clouds = clouds(&[("clouds.yaml", &main)], &[env.as_slice(), &secret].concat()).unwrap();
    assert_eq!(clouds.names(), ["c", "envvars"]);
    assert_eq!(clouds.get("envvars").unwrap().region.as_deref(), Some("E"));
    assert_eq!(clouds.get("c").unwrap().region, None);
    for text in [format!("{clouds:?}"), format!("{:?}{:?}", clouds.get("c"), clouds.get("envvars"))] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn selectors_alone_make_no_cloud() {
    let env = [("OS_CLOUD", "c"), ("OS_REGION_NAME", "R"), ("OS_CLOUD_NAME", "x"), ("OS_CLIENT_CONFIG_FILE", "none")];
    assert!(clouds(&[], &env).unwrap().names().is_empty());
}

#[test]
fn an_unknown_cloud_is_answered_with_what_is_known() {
    let main = format!("clouds: {{c: {{{AUTH}}}, b: {{}}}}");
    let known = clouds(&[("clouds.yaml", &main)], &[("OS_CLIENT_CONFIG_FILE", "/nonexistent/x.yaml")]).unwrap();
    let text = known.get("a").unwrap_err().to_string();
    for part in ["cloud a is not known", "/clouds.yaml has b, c", "/nonexistent/x.yaml was passed over"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(clouds(&[], &[]).unwrap().get("a").unwrap_err().to_string().contains("no clouds.yaml was found"));
}

#[test]
fn files_that_are_not_clouds_are_errors_with_a_place() {
    for (text, expected) in [
        ("clouds:\n  c: {password: s3cret\n", "line "),
        ("[s3cret]", "is not a mapping"),
        ("clouds: s3cret", "`clouds`"),
    ] {
        let error = clouds(&[("clouds.yaml", text)], &[]).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("clouds.yaml") && !error.contains("s3cret"), "{error}");
    }
}

#[test]
fn a_missing_or_impossible_value_is_named() {
    let url = "auth: {auth_url: 'https://k', username: u, password: s3cret";
    for (more, expected) in [
        ("auth: {}".to_owned(), "auth.auth_url is missing"),
        ("profile: v".to_owned(), "has no profile v"),
        ("auth: {auth_url: 'ftp://k'}, auth_type: none".to_owned(), "auth_type is not supported"),
        (format!("{url}}}"), "auth.user_domain_name is missing"),
        (format!("{url}, user_domain_id: d, project_name: p}}"), "auth.project_domain_name is missing"),
        (format!("{url}, user_domain_id: d, trust_id: t}}"), "auth.trust_id is not supported"),
        (format!("{url}, user_domain_id: [d]}}"), "auth.user_domain_id is not a single value"),
        (format!("{AUTH}, interface: sideways"), "interface is not public"),
        (format!("{AUTH}, identity_api_version: 2.0"), "only version 3"),
        (format!("{AUTH}, image_endpoint: glance"), "image_endpoint_override is not an http"),
        (format!("{AUTH}, regions: [{{values: {{}}}}]"), "regions has an entry"),
    ] {
        let text = error(&more);
        assert!(text.starts_with("cloud c: ") && text.contains(expected) && !text.contains("s3cret"), "{text}");
    }
}

#[test]
fn home_stands_for_a_tilde() {
    let main = format!("clouds: {{c: {{{AUTH}, cacert: ~/ca.pem, cert: /me.pem, key: '~other/k'}}}}");
    let cloud = one(&[("clouds.yaml", &main)]);
    assert!(cloud.cacert.unwrap().is_absolute());
    assert_eq!(cloud.client_cert.unwrap().1.unwrap(), Path::new("~other/k"));
}
