use super::*;

#[test]
fn only_public_addresses_are_public() {
    let private = [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "203.0.113.9",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::127.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "2001::1",
        "2001:db8::1",
        "fec0::1",
    ];
    for text in private {
        assert!(check(text.parse().unwrap()).is_err(), "{text}");
    }
    for text in [
        "1.1.1.1",
        "100.128.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "2001:4860::8",
    ] {
        assert!(check(text.parse().unwrap()).is_ok(), "{text}");
    }
    let found = |list: &[&str]| list.iter().map(|ip| (ip.parse::<IpAddr>().unwrap(), 0).into()).collect::<Vec<_>>();
    assert_eq!(public_only(found(&["10.0.0.1", "1.1.1.1"])).unwrap(), found(&["1.1.1.1"]));
    assert!(public_only(found(&["10.0.0.1", "::1"])).is_err());
}
