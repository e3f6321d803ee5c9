use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use imagewright_common::arch::Arch;
use imagewright_common::job::Release;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::files::List;
use super::render::SIZE_MAX;
use super::*;

const HOST_KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nof the tests\n-----END OPENSSH PRIVATE KEY-----\n";

fn recipe(arch: Arch, release: Release) -> Recipe {
    let version = "2.330.0";
    let file = format!("actions-runner-linux-{}-{version}.tar.gz", arch.runner());
    Recipe {
        arch,
        release: Some(release),
        name: format!("runner-{release}-{arch}"),
        runner: Some(Runner {
            version: version.to_owned(),
            url: format!("https://github.com/actions/runner/releases/download/v{version}/{file}").parse().unwrap(),
            sha256: "ab".repeat(32),
        }),
        proxy: None,
        apt_mirror: None,
        snap_proxy: None,
    }
}

fn noble() -> Recipe {
    recipe(Arch::Amd64, Release::Noble)
}

fn rendered(recipe: &Recipe, content: &Content) -> Result<UserData, ContentError> {
    let host_private = SecretString::from(HOST_KEY);
    let login = Login {
        user: "imagewright",
        public_key: "ssh-ed25519 AAAAuser",
        host_private: &host_private,
        host_public: "ssh-ed25519 AAAAhost",
    };
    render(recipe, content, &login)
}

/// What cloud-init reads, after what it does with Base64 and gzip.
fn text(data: &UserData) -> String {
    let bytes = STANDARD.decode(data.base64.expose_secret()).unwrap();
    match bytes.strip_prefix(b"#cloud-config") {
        Some(_) => String::from_utf8(bytes).unwrap(),
        None => {
            let mut text = String::new();
            GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
            text
        }
    }
}

fn config(text: &str) -> Value {
    serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap()
}

fn environment(recipe: &Recipe, content: &Content) -> String {
    recipe.environment(content).unwrap()
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
    folder
}

fn with(files: &[(&str, &str)]) -> Result<Content, ContentError> {
    Content::built_in().with_folder(folder(files).path())
}

/// Scripts by their digest, for they are the same everywhere and stand in `worker/content/`; variables a line each.
fn abridged(text: &str) -> String {
    let mut config = config(text);
    for file in config["write_files"].as_array_mut().unwrap() {
        let body = file["content"].as_str().unwrap().to_owned();
        file["content"] = if file["path"].as_str().unwrap().ends_with("/environment") {
            json!(body.lines().collect::<Vec<_>>())
        } else {
            let digest: String = Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
            json!(format!("sha256:{digest}"))
        };
    }
    format!("{config:#}\n")
}

/// Compare with a file of `worker/tests/golden/`; `IMAGEWRIGHT_GOLDEN=write` writes it instead.
fn is_golden(name: &str, found: &str) {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/user-data").join(name);
    if std::env::var("IMAGEWRIGHT_GOLDEN").as_deref() == Ok("write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, found).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == golden,
        "{name} is not what it was; IMAGEWRIGHT_GOLDEN=write cargo test content, then read the diff"
    );
}

#[test]
fn every_architecture_and_release_has_its_golden_user_data() {
    for release in Release::ALL {
        for arch in Arch::ALL {
            let data = rendered(&recipe(arch, release), &Content::built_in()).unwrap();
            is_golden(&format!("{release}-{arch}.json"), &abridged(&text(&data)));
        }
    }
}

#[test]
fn one_golden_user_data_is_whole_and_has_every_choice() {
    let mut recipe = noble();
    recipe.proxy = Some("proxy.example.org:3128".to_owned());
    recipe.apt_mirror = Some("https://mirror.example.org/ubuntu/".parse().unwrap());
    recipe.snap_proxy = Some("https://snaps.example.org/".parse().unwrap());
    let data = rendered(&recipe, &Content::built_in()).unwrap();
    is_golden("whole.yaml", &text(&data));
    assert!(data.base64.expose_secret().len() <= SIZE_MAX);
}

#[test]
fn the_digest_is_that_of_the_content_and_not_of_the_login() {
    let digest = |recipe: &Recipe, content: &Content| rendered(recipe, content).unwrap().template_digest;
    let plain = digest(&noble(), &Content::built_in());
    let other = SecretString::from("another key");
    let login = Login { user: "u", public_key: "p", host_private: &other, host_public: "h" };
    assert_eq!(render(&noble(), &Content::built_in(), &login).unwrap().template_digest, plain);
    assert_eq!(plain.len(), 64);
    assert_ne!(digest(&noble(), &with(&[("99-mine.sh", "true\n")]).unwrap()), plain);
    assert_ne!(digest(&noble(), &with(&[("mine.packages", "hello\n")]).unwrap()), plain);
    assert_ne!(digest(&Recipe { runner: None, ..noble() }, &Content::built_in()), plain);
}

#[test]
fn the_key_of_the_builder_is_the_only_secret_and_is_not_shown() {
    let data = rendered(&noble(), &Content::built_in()).unwrap();
    let whole = config(&text(&data));
    assert_eq!(whole["ssh_keys"]["ed25519_private"], HOST_KEY);
    assert_eq!(text(&data).matches("PRIVATE KEY").count(), 2);
    assert!(!format!("{:?}", data.base64).contains("Y2xvdWQt"));
}

#[test]
fn what_is_too_large_for_nova_is_compressed_and_what_still_is_says_so() {
    let long = "# the same line again and again, which compresses well\n".repeat(2000);
    let data = rendered(&noble(), &with(&[("97-long.sh", &long)]).unwrap()).unwrap();
    assert!(data.base64.expose_secret().starts_with("H4sI"));
    assert!(text(&data).contains("again and again") && data.base64.expose_secret().len() <= SIZE_MAX);
    let again = rendered(&noble(), &with(&[("97-long.sh", &long)]).unwrap()).unwrap();
    assert_eq!(again.base64.expose_secret(), data.base64.expose_secret());

    let noise: String =
        (0..3000_u32).map(|number| format!("# {:x?}\n", Sha256::digest(number.to_le_bytes()))).collect();
    let error = rendered(&noble(), &with(&[("98-noise.sh", &noise)]).unwrap()).err().unwrap().to_string();
    assert!(error.contains("65535") && error.contains("98-noise.sh"), "{error}");
}

#[test]
fn a_folder_replaces_extends_and_takes_away() {
    let files = [("20-packages.sh", "echo mine\n"), ("80-snaps.sh", ""), ("85-more.sh", "true\n"), (".hidden", "x")];
    let content = with(&files).unwrap();
    let scripts: Vec<(&str, &str)> = content.scripts().collect();
    assert!(scripts.contains(&("20-packages.sh", "echo mine\n")) && scripts.contains(&("85-more.sh", "true\n")));
    assert!(scripts.iter().all(|(name, _)| *name != "80-snaps.sh"));
    assert!(scripts.is_sorted_by_key(|(name, _)| *name));
    let lists = with(&[("site.packages", "hello\njq\n"), ("default.users", "alice\n")]).unwrap();
    let environment = environment(&noble(), &lists);
    assert!(environment.contains(" yarnpkg hello'\n") && environment.contains("USERS='alice'"), "{environment}");
}

#[test]
fn a_folder_that_is_no_content_is_refused_with_the_file_named() {
    for (name, body, said) in [
        ("packages.sh", "x", "NN-NAME.sh"),
        ("README.md", "x", "NN-NAME.sh"),
        ("1-x.sh", "x", "NN-NAME.sh"),
        ("11-x y.sh", "x", "NN-NAME.sh"),
        ("11-x.sh", "a\r\n", "'\\r'"),
    ] {
        let error = with(&[(name, body)]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(said), "{error}");
    }
    let error = Content::built_in().with_folder(Path::new("/nowhere/at/all")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all"), "{error}");
}

#[test]
fn brackets_say_where_a_line_holds() {
    let lines = |line: &str, arch, release| {
        let content = Content::built_in().with_folder(folder(&[("default.packages", line)]).path()).unwrap();
        !content.lines(List::Packages, arch, release).unwrap().is_empty()
    };
    for (line, amd64_noble, armhf_focal, amd64_unknown) in [
        ("x", true, true, true),
        ("x [amd64]", true, false, true),
        ("x [noble jammy]", true, false, false),
        ("x [!armhf]", true, false, true),
        ("x [!focal]", true, false, true),
        ("x [armhf focal]", false, true, false),
        ("x [armhf noble]", false, false, false),
        ("x [x64 aarch64 24.04]", true, false, false),
        ("# x", false, false, false),
    ] {
        assert_eq!(lines(line, Arch::Amd64, Some(Release::Noble)), amd64_noble, "{line}");
        assert_eq!(lines(line, Arch::Armhf, Some(Release::Focal)), armhf_focal, "{line}");
        assert_eq!(lines(line, Arch::Amd64, None), amd64_unknown, "{line}");
    }
}

#[test]
fn a_wrong_line_is_named() {
    for (file, line) in [
        ("a.packages", "jq; reboot"),
        ("a.packages", "--force-yes"),
        ("a.packages", "jq [sparc]"),
        ("a.packages", "jq [noble"),
        ("a.snaps", "yq"),
        ("a.users", "../root"),
        ("a.services", "x y"),
        ("a.sysctl", "vm.swappiness"),
        ("a.sysctl", "vm.swappiness=$(reboot)"),
    ] {
        let error = rendered(&noble(), &with(&[(file, &format!("# fine\n{line}\n"))]).unwrap()).err().unwrap();
        assert!(error.to_string().starts_with(&format!("content {file}, line 2: ")), "{error}");
    }
}

#[test]
fn a_choice_that_cannot_be_written_down_is_refused() {
    let refused = |recipe: Recipe| rendered(&recipe, &Content::built_in()).err().map(|error| error.to_string());
    let mirror = |url: &str| Recipe { apt_mirror: Some(url.parse().unwrap()), ..noble() };
    assert_eq!(refused(mirror("http://mirror.example.org:8080/ubuntu")), None);
    for url in
        ["https://u:s3cret@m/", "https://m/?key=s3cret", "https://m/#x", "ftp://m/", "https://m/a&b", "https://m/a|b"]
    {
        let error = refused(mirror(url)).unwrap();
        assert!(error.starts_with("apt mirror: ") && !error.contains("s3cret"), "{error}");
    }
    assert!(refused(Recipe { name: "a\nb".to_owned(), ..noble() }).unwrap().starts_with("name: "));
}

#[test]
fn a_shell_reads_what_was_meant() {
    let name = r#"it's "a" $(name) `of` \ an image; #1"#;
    let environment = environment(&Recipe { name: name.to_owned(), ..noble() }, &Content::built_in());
    let script = format!("set -eu\n{environment}\nprintf '%s|%s' \"$IMAGE_NAME\" \"$SYSCTL\"");
    let said = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    let sysctl = "net.core.default_qdisc=fq\nnet.ipv4.tcp_congestion_control=bbr";
    assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("{name}|{sysctl}"));
}

fn release(digest: &str) -> Vec<u8> {
    json!({
        "tag_name": "v2.330.0",
        "assets": [
            { "name": "actions-runner-win-x64-2.330.0.zip", "digest": "sha256:00" },
            {
                "name": "actions-runner-linux-arm64-2.330.0.tar.gz",
                "browser_download_url": "https://github.com/o/r/releases/download/v2.330.0/a.tar.gz",
                "digest": digest,
            },
        ],
    })
    .to_string()
    .into_bytes()
}

#[test]
fn a_release_tells_the_archive_of_an_architecture_and_its_digest() {
    let digest = format!("sha256:{}", "AB".repeat(32));
    let runner = choose(&release(&digest), Arch::Arm64, None).unwrap();
    assert_eq!((runner.version.as_str(), runner.sha256), ("2.330.0", "ab".repeat(32)));
    assert_eq!(runner.url.as_str(), "https://github.com/o/r/releases/download/v2.330.0/a.tar.gz");
    let mirror = "https://mirror.example.org/runner".parse().unwrap();
    let runner = choose(&release(&digest), Arch::Arm64, Some(&mirror)).unwrap();
    let mirrored = "https://mirror.example.org/runner/v2.330.0/actions-runner-linux-arm64-2.330.0.tar.gz";
    assert_eq!(runner.url.as_str(), mirrored);
    for (body, arch, said) in [
        (release(&digest), Arch::S390x, "has no actions-runner-linux-s390x-2.330.0.tar.gz"),
        (release("sha1:00"), Arch::Arm64, "tells no SHA-256"),
        (b"<html>".to_vec(), Arch::Arm64, "no release"),
        (br#"{"tag_name": "v2;reboot"}"#.to_vec(), Arch::Arm64, "no tag"),
    ] {
        let error = choose(&body, arch, None).unwrap_err().to_string();
        assert!(error.starts_with("runner version: ") && error.contains(said), "{error}");
    }
}
