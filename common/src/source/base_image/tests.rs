use super::*;

#[test]
fn the_image_of_a_release_is_where_ubuntu_puts_it() {
    let at = |mirror: Option<&str>| folder(mirror.map(|text| text.parse().unwrap()).as_ref(), Release::Noble).unwrap();
    assert_eq!(at(None).as_str(), "https://cloud-images.ubuntu.com/releases/noble/release/");
    for mirror in ["https://m.example.org/u", "https://m.example.org/u/"] {
        assert_eq!(at(Some(mirror)).as_str(), "https://m.example.org/u/releases/noble/release/");
    }
    let signed = join(&at(Some("https://m.example.org/u?key=s3cret")), LIST).unwrap();
    assert_eq!(signed.as_str(), "https://m.example.org/u/releases/noble/release/SHA256SUMS?key=s3cret");
    assert!(!shown(&signed).contains("s3cret"));
}

#[test]
fn a_digest_is_that_of_exactly_the_name() {
    let (one, two) = ("1".repeat(64), "A".repeat(64));
    let list = format!("{one} *x-amd64.img.manifest\n{two} *x-amd64.img\nshort *y.img\n{one}  text.img\n");
    assert_eq!(digest_of(&list, "x-amd64.img"), Some("a".repeat(64)));
    assert_eq!(digest_of(&list, "text.img"), Some(one));
    assert_eq!(digest_of(&list, "y.img"), None);
    assert_eq!(digest_of(&list, "amd64.img"), None);
}

#[test]
fn only_a_signature_of_another_list_is_tried_again() {
    let of = |error: &KeyringError| of_keyring(error, error.to_string());
    assert!(matches!(of(&KeyringError::Bad("K".to_owned())), SourceError::Transient { .. }));
    let refused = [
        KeyringError::NoSignature(String::new()),
        KeyringError::UnknownKey { by: "B".to_owned(), has: "K".to_owned() },
        KeyringError::ExpiredKey { key: "K".to_owned(), at: jiff::Timestamp::MIN },
        KeyringError::Revoked("K".to_owned()),
    ];
    assert!(refused.iter().all(|error| matches!(of(error), SourceError::Refused { .. })));
}
