use super::*;

const EXAMPLE: &str = include_str!("../../../../docs/examples/images.yaml");

fn entry(more: &str) -> String {
    format!("images:\n- {{name: noble, clouds: [edge-1], interval: 1d, {more}}}\n")
}

fn refused(text: &str) -> String {
    parse(text).map(|targets| format!("{targets:?}")).unwrap_err()
}

#[test]
fn the_example_is_a_file_that_can_be_used() {
    let targets = parse(EXAMPLE).unwrap();
    let shown: Vec<String> = targets
        .iter()
        .map(|Target { name, arch, cloud, spec, interval, .. }| {
            let keep = match spec {
                Spec::Upload(upload) => upload.keep,
                Spec::Build(build) => build.keep,
                other @ (Spec::Prune(_) | Spec::Snapshot(_) | Spec::BaseImage(_)) => panic!("{other:?}"),
            };
            format!("{name} {arch} {cloud} keep {keep} {}h", interval.as_hours())
        })
        .collect();
    assert_eq!(
        shown,
        [
            "noble amd64 edge-1 keep 3 168h",
            "noble amd64 edge-2 keep 3 168h",
            "noble arm64 edge-1 keep 3 168h",
            "noble arm64 edge-2 keep 3 168h",
            "rescue amd64 edge-2 keep 5 24h",
            "runner-noble-amd64 amd64 edge-1 keep 5 6h"
        ]
    );
}

fn upload(spec: &Spec) -> &UploadSpec {
    let Spec::Upload(upload) = spec else { panic!("{spec:?}") };
    upload
}

#[test]
fn a_build_is_one_job_for_all_its_clouds() {
    let text = "images: [{name: n, arch: amd64, clouds: [a, b, c], interval: 6h, keep: 3, build: {cloud: b, \
                base: 24.04, runner_version: latest, script: {url: 'https://h/s', secrets: [TOKEN]}}}]";
    let targets = parse(text).unwrap();
    let [target @ Target { spec: Spec::Build(build), .. }] = targets.as_slice() else { panic!("{targets:?}") };
    assert_eq!((target.cloud.as_str(), build.upload_to.len(), build.keep.get()), ("b", 2, 3));
    assert_eq!(target.clouds().map(CloudName::as_str).collect::<Vec<_>>(), ["b", "a", "c"]);
    assert_eq!(build.base.to_string(), "noble");
}

#[test]
fn what_is_written_is_what_is_asked_for() {
    let text = entry(
        "arch: x64, source: {image: {cloud: build, id: 0f9f}}, keep: 2, disk_format: qcow2, visibility: shared, \
         properties: {os_version: '24.04'}",
    );
    let targets = parse(&text).unwrap();
    let [Target { spec, interval, .. }] = targets.as_slice() else { panic!("{targets:?}") };
    let spec = upload(spec);
    assert_eq!((spec.arch, spec.keep.get(), *interval), (Arch::Amd64, 2, SignedDuration::from_hours(24)));
    assert_eq!((spec.disk_format, spec.visibility), (DiskFormat::Qcow2, Visibility::Shared));
    assert_eq!(spec.source.to_string(), "image 0f9f of build");
    assert_eq!(spec.properties["os_version"], "24.04");
    assert!(parse("images: []").unwrap().is_empty());
}

#[test]
fn every_refusal_names_the_key_and_what_would_be_right() {
    let file = "arch: amd64, source: {file: /f}";
    let sha = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    for (more, key, hint) in [
        ("arch: amd64, source: {fil: /f}".to_owned(), "images[0].source.fil", "one of file, url"),
        (format!("{file}, colour: red"), "images[0].colour", "visibility"),
        (format!("{file}, build: {{cloud: b, base: noble}}"), "images[0].source", "not beside build"),
        (format!("{file}, build: {{base: noble}}"), "images[0].build.cloud", "missing"),
        ("arch: amd64, build: {cloud: b, base: bionic}".to_owned(), "images[0].build.base", "noble"),
        ("arch: amd64, build: {cloud: b, base: noble}, visibility: shared".to_owned(), "images[0].visibility", "not"),
        ("build: {cloud: b, base: noble}".to_owned(), "images[0].arch", "missing"),
        (format!("{file}, keep: 0"), "images[0].keep", "1 to 99"),
        (format!("{file}, disk_format: tape"), "images[0].disk_format", "qcow2"),
        (format!("{file}, properties: {{imagewright_job: x}}"), "images[0].properties.imagewright_job", "may not"),
        (format!("{file}, sources: {{amd64: {{file: /f}}}}"), "images[0].sources", "either"),
        ("arch: amd64".to_owned(), "images[0].source", "missing"),
        ("source: {file: /f}".to_owned(), "images[0].arch", "missing"),
        ("keep: 1".to_owned(), "images[0].source", "missing"),
        ("sources: {}".to_owned(), "images[0].sources", "at least one"),
        ("sources: {sparc: {file: /f}}".to_owned(), "images[0].sources.sparc", "s390x"),
        ("arch: sparc, source: {file: /f}".to_owned(), "images[0].arch", "s390x"),
        ("sources: {amd64: {file: f}}".to_owned(), "images[0].sources.amd64", "absolute"),
        ("sources: {amd64: {file: /f}, x86_64: {file: /g}}".to_owned(), "images[0].clouds", "already"),
        (format!("arch: amd64, source: {{url: 'http://h/i?secret', sha256: {sha}}}"), "images[0].source.url", "https"),
        (format!("arch: amd64, source: {{url: 'h/i?secret', sha256: {sha}}}"), "images[0].source.url", "address"),
        (format!("arch: amd64, source: {{url: 'https://u:secret@h/', sha256: {sha}}}"), "images[0].source.url", "user"),
        ("arch: amd64, source: {url: 'https://h/'}".to_owned(), "images[0].source", "sha256"),
    ] {
        let error = refused(&entry(&more));
        let found = error.starts_with(&format!("{key}: ")) || error.contains(&format!(": {key}: "));
        assert!(found && error.contains(hint) && !error.contains("secret"), "{more}: {error}");
    }
}

#[test]
fn clouds_and_intervals_have_rules_of_their_own() {
    let text = |clouds: &str, interval: &str| {
        format!("images: [{{name: n, arch: amd64, source: {{file: /f}}, clouds: {clouds}, interval: {interval}}}]")
    };
    assert!(parse(&text("[a, b]", "1m")).is_ok());
    for (clouds, interval, key) in [
        ("[]", "1d", "images[0].clouds: empty"),
        ("[a, a]", "1d", "images[0].clouds: n for amd64 on a is asked for in images[0]"),
        ("[a]", "59s", "images[0].interval: "),
        ("[a]", "61.5s", "images[0].interval: "),
        ("[a]", "1mo", "images[0].interval: "),
        ("[a]", "often", "images[0].interval: "),
    ] {
        let error = refused(&text(clouds, interval));
        assert!(error.starts_with(key), "{error}");
    }
}

#[test]
fn a_file_of_another_version_or_shape_is_refused() {
    assert!(refused("version: 2\nimages: []").starts_with("version: 2 is unknown"));
    for text in ["", "[]", "image: []", "images: [{name: n}]", "images: [\n", "images: []\nimages: []\n"] {
        assert!(refused(text).starts_with("line "), "{text}: {}", refused(text));
    }
}

#[test]
fn the_schema_knows_each_key_and_refuses_others() {
    let schema = schema();
    let entry = &schema["$defs"]["Entry"];
    assert_eq!((&schema["additionalProperties"], &entry["additionalProperties"]), (&json!(false), &json!(false)));
    assert_eq!(entry["required"], json!(["name", "clouds", "interval"]));
    assert!(entry["properties"]["sources"]["properties"]["aarch64"].is_object(), "{entry:#}");
    assert!(entry["properties"]["properties"]["propertyNames"]["not"].is_object());
    assert_eq!(schema["$defs"]["Build"]["required"], json!(["cloud", "base"]));
}
