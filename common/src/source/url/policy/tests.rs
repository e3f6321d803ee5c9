use super::*;

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

#[test]
fn the_policy_is_exact() {
    let policy = UrlPolicy::new(&["images.example", "files.example:8443", "[2001:db8::1]", "10.0.0.1:443"]).unwrap();
    let allowed = [
        "https://IMAGES.example/a",
        "https://images.example.:9/a",
        "https://files.example:8443/",
        "https://[2001:db8::1]/",
        "https://10.0.0.1/",
    ];
    for text in allowed {
        assert_eq!(policy.permits(&url(text)), Ok(Permission::Exactly), "{text}");
    }
    let refused = [
        "http://images.example/",
        "ftp://images.example/",
        "https://a.images.example/",
        "https://images.example.evil/",
        "https://files.example/",
        "https://u@images.example/",
        "https://:p@images.example/",
        "https://10.0.0.1:8443/",
        "file:///etc/passwd",
    ];
    for text in refused {
        assert!(policy.permits(&url(text)).is_err(), "{text}");
    }
    let reason = policy.permits(&url("https://evil.example:1/a?token=secret")).unwrap_err();
    assert_eq!(reason, "evil.example:1 is not a --url-host of this worker");
    let any = UrlPolicy::new(&["*", "near.example"]).unwrap();
    assert_eq!(any.permits(&url("https://other.example/")), Ok(Permission::Any));
    assert_eq!(any.permits(&url("https://near.example/")), Ok(Permission::Exactly));
    for entry in ["", "a/b", "https://a", "a?b", "u@a", "*.a", "a:x", "a/"] {
        assert!(UrlPolicy::new(&[entry]).is_err(), "{entry:?}");
    }
}

#[test]
fn proxies_are_known_by_host() {
    let one = |value: &'static str| proxy_hosts(|name| (name == "https_proxy").then(|| value.to_owned()));
    assert_eq!(one("http://u:p@Proxy.internal:3128"), ["proxy.internal"]);
    assert_eq!(one("proxy.internal:3128"), ["proxy.internal"]);
    assert!(one("").is_empty());
}
