use proptest::prelude::*;

use super::*;

fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn field(letter: u8, value: &[u8]) -> Vec<u8> {
    [&[letter], value].concat()
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, 1], &*long(payload), &[0xCE]].concat()
}

/// A header with a table and some short strings after it: of the properties, those of `flags`.
fn header(flags: u16, properties: &[&[u8]]) -> Vec<u8> {
    let begin: &[&[u8]] = &[&60_u16.to_be_bytes(), &[0; 2], &9_u64.to_be_bytes(), &flags.to_be_bytes()];
    frame(HEADER, &[begin, properties].concat().concat())
}

fn deliver(tag: &[u8], exchange: &[u8], key: &[u8]) -> Vec<u8> {
    let begin = [BASIC.to_be_bytes(), DELIVER.to_be_bytes()].concat();
    frame(METHOD, &[begin, short(tag), vec![0; 9], short(exchange), short(key)].concat())
}

/// What comes out when the bytes arrive in pieces.
fn through(bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut frames = Frames::default();
    let mut seen = Vec::new();
    let mut drain = |frames: &mut Frames| {
        let mut target = [0; 5];
        while let count @ 1.. = frames.give(&mut target) {
            seen.extend_from_slice(&target[..count]);
        }
    };
    for piece in bytes.chunks(piece) {
        frames.take(piece);
        drain(&mut frames);
    }
    frames.end();
    drain(&mut frames);
    seen
}

#[test]
fn short_strings_of_other_bytes_become_legible_wherever_the_connection_cuts_them() {
    let names = [short(b"\xffname"), field(b'S', &long(b"\xff\xfe")), short("ü".as_bytes()), field(b'V', b"")].concat();
    let clean = [short(b"?name"), field(b'S', &long(b"\xff\xfe")), short("ü".as_bytes()), field(b'V', b"")].concat();
    let (flags, text) = (0b1010_1100_1000_0000, short(b"text/plain"));
    let message = |table: &[u8], id: &[u8], tag: &[u8], key: &[u8]| {
        let properties: [&[u8]; 5] = [&text, &long(table), &[0], &short(b"c"), &short(id)];
        let frames = [deliver(tag, b"jobs", key), header(flags, &properties), frame(BODY, b"\xff\xff"), frame(8, b"")];
        frames.concat()
    };
    let sent = message(&names, b"a\xc3\x28\xff", b"t", b"upload.\xf0\x9f");
    let read = message(&clean, b"a?(?", b"t", b"upload.??");
    for piece in [1, 2, 3, 7, 8, 50, sent.len()] {
        assert_eq!(through(&sent, piece), read, "in pieces of {piece}");
        assert_eq!(through(&read, piece), read, "in pieces of {piece}");
    }
}

#[test]
fn what_lies_too_deep_is_handed_on_as_bytes() {
    for letter in [b'A', b'F'] {
        let wrap =
            |inner: Vec<u8>| if letter == b'F' && !inner.is_empty() { [short(b"k"), inner].concat() } else { inner };
        let nested = |levels: usize| {
            let whole = (0..levels).fold(Vec::new(), |inner, _| field(letter, &long(&wrap(inner))));
            header(0x2000, &[&long(&[short(b"deep"), whole].concat())])
        };
        assert_eq!(through(&nested(DEPTH), 11), nested(DEPTH));
        let (sent, read) = (nested(DEPTH + 1), through(&nested(DEPTH + 1), 11));
        let changed: Vec<_> = sent.iter().zip(&read).filter(|(sent, read)| sent != read).collect();
        assert_eq!(changed, [(&letter, &b'x')]);
        assert_eq!(through(&nested(5_000), 4096).len(), nested(5_000).len());
    }
}

#[test]
fn what_is_no_amqp_goes_through_as_it_is() {
    for foreign in [
        &b"HTTP/1.1 400 Bad Request\r\n\xff\r\n"[..],
        b"AMQP\x00\x00\x09\x01",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"\x01\x00",
    ] {
        for piece in [1, 4, 100] {
            assert_eq!(through(foreign, piece), foreign);
        }
    }
}

proptest! {
    #[test]
    fn nothing_is_added_and_nothing_kept(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1..40_usize) {
        prop_assert_eq!(through(&bytes, piece).len(), bytes.len());
    }

    #[test]
    fn whatever_a_frame_holds_it_keeps_its_length_and_its_head(
        kind in 1..=2_u8, payload in proptest::collection::vec(any::<u8>(), 0..300), piece in 1..40_usize
    ) {
        let sent = frame(kind, &payload);
        let read = through(&sent, piece);
        prop_assert_eq!(read.len(), sent.len());
        prop_assert_eq!(&read[..HEAD], &sent[..HEAD]);
        prop_assert_eq!(through(&read, 9), read);
    }

    #[test]
    fn whatever_the_strings_are_they_are_text_of_the_same_length(key in proptest::collection::vec(any::<u8>(), 0..255)) {
        let read = through(&deliver(b"t", b"jobs", &key), 64);
        let at = read.len() - 1 - key.len();
        prop_assert!(str::from_utf8(&read[at..read.len() - 1]).is_ok());
        if let Ok(text) = str::from_utf8(&key) {
            prop_assert_eq!(&read[at..read.len() - 1], text.as_bytes());
        }
    }
}
