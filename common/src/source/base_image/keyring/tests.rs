//! Signatures by GnuPG, in `common/tests/openpgp/`, whose README says what each is.

use std::path::PathBuf;

use super::*;

const PRIMARY: &str = "06BAB952DFA295F47B422DCF5063DBBC7409C733";
const SUBKEY: &str = "73BA0C8072DE208ECE664C17686A2E97D3574AA1";

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/openpgp").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn verify_at(keyring: &str, signature: &[u8], now: &str) -> Result<String, KeyringError> {
    let keyring = Keyring::read(&path(keyring)).unwrap_or_else(|error| panic!("{error}"));
    keyring.verify(&read("list"), signature, now.parse().unwrap())
}

fn verify(signature: &str) -> Result<String, KeyringError> {
    verify_at("keyring.gpg", &read(signature), "2026-06-02T00:00:00Z")
}

#[test]
fn a_trusted_key_or_its_subkey_may_sign_armoured_or_not() {
    for (signature, by) in
        [("primary.sig", PRIMARY), ("primary.asc", PRIMARY), ("two.sig", PRIMARY), ("subkey.asc", SUBKEY)]
    {
        assert_eq!(verify(signature).as_deref(), Ok(by), "{signature}");
    }
    let armoured = verify_at("primary-armoured.asc", &read("primary.sig"), "2026-06-02T00:00:00Z");
    assert_eq!(armoured.as_deref(), Ok(PRIMARY));
}

#[test]
fn a_subkey_ends_before_its_key() {
    let late = |signature: &str| verify_at("keyring.gpg", &read(signature), "2027-06-01T00:00:00Z");
    let at = "2027-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(late("subkey.asc"), Err(KeyringError::ExpiredKey { key: SUBKEY.to_owned(), at }));
    assert_eq!(late("primary.asc").as_deref(), Ok(PRIMARY));
}

#[test]
fn what_proves_nothing_is_refused_with_the_reason() {
    assert!(matches!(verify("sha1.asc"), Err(KeyringError::Weak { what, .. }) if what.contains("Sha1")));
    assert!(matches!(verify("revoked.asc"), Err(KeyringError::Revoked(_))));
    assert!(matches!(verify("clear.asc"), Err(KeyringError::NoSignature(_))));
    let unknown = verify("stranger.asc").unwrap_err().to_string();
    assert!(unknown.contains("not in the keyring") && unknown.contains(PRIMARY), "{unknown}");
    let late = verify_at("keyring.gpg", &read("brief.asc"), "2026-06-11T00:00:01Z").unwrap_err().to_string();
    assert!(late.contains("expired at 2026-06-11T00:00:00Z"), "{late}");
    assert_eq!(verify("brief.asc").as_deref(), Ok(PRIMARY));
    let early = verify_at("keyring.gpg", &read("primary.asc"), "2026-05-01T00:00:00Z").unwrap_err().to_string();
    assert!(early.contains("is dated 2026-06-01T00:00:00Z"), "{early}");
}

#[test]
fn a_byte_that_was_changed_is_noticed() {
    let keyring = Keyring::read(&path("keyring.gpg")).unwrap_or_else(|error| panic!("{error}"));
    let now = "2026-06-02T00:00:00Z".parse().unwrap();
    let (list, signature) = (read("list"), read("primary.sig"));
    for place in 0..list.len() {
        let mut changed = list.clone();
        changed[place] ^= 1;
        assert_eq!(keyring.verify(&changed, &signature, now), Err(KeyringError::Bad(PRIMARY.to_owned())));
    }
    for place in 0..signature.len() {
        let mut changed = signature.clone();
        changed[place] ^= 1;
        // Of a signature, only what it does not sign may differ: the id of its maker, said again.
        if let Ok(by) = keyring.verify(&list, &changed, now) {
            assert_eq!(by, PRIMARY);
            assert!(signature.len() - place > 250, "byte {place}");
        }
    }
}

#[test]
fn no_keyring_is_said_with_what_to_do() {
    for (name, said) in [("nowhere.gpg", "No such file"), ("README.md", "keyring"), ("primary.sig", "no OpenPGP key")] {
        let error = Keyring::read(&path(name)).err().unwrap().to_string();
        assert!(error.contains(name) && error.contains(said) && error.contains("--keyring"), "{error}");
    }
    assert!(matches!(verify_at("keyring.gpg", b"", "2026-06-02T00:00:00Z"), Err(KeyringError::NoSignature(_))));
}
