//! What was written on a server, taken over piece by piece. Where a piece begins or ends in the middle of a secret, the
//! secret is blotted out all the same: each is read with as much around it as a secret may reach beyond it.

use imagewright_common::job::SecretName;
use secrecy::{ExposeSecret as _, SecretString};

/// The most that is taken over with one look, in bytes.
const PIECE: usize = 16 * 1024;

/// What is taken over of an output that was cut short, in bytes.
const TAIL: usize = 8 * 1024;

/// A line of a secret that is shorter than this is none, and blotting it out would eat the text.
const SECRET_MIN: usize = 4;

/// What stands for a secret.
const BLOT: &str = "***";

/// What nobody may see: the lines of secrets.
pub(crate) struct Blots {
    lines: Vec<SecretString>,
}

/// Which part of an output is read.
pub(crate) struct Reading<'a> {
    /// What was taken over before, in bytes.
    pub(crate) offset: u64,
    /// It was too much: the last of it only, once it has ended.
    pub(crate) cut: bool,
    pub(crate) blots: &'a Blots,
}

impl Blots {
    /// There is nothing to hide.
    pub(crate) const fn none() -> Blots {
        Blots { lines: Vec::new() }
    }

    pub(crate) fn of(secrets: &[(SecretName, SecretString)]) -> Blots {
        let lines = secrets.iter().flat_map(|(_, secret)| secret.expose_secret().lines());
        let lines = lines.filter(|line| line.len() >= SECRET_MIN).map(|line| SecretString::from(line.to_owned()));
        Blots { lines: lines.collect() }
    }

    /// How far a secret may go on beyond its first byte.
    fn reach(&self) -> usize {
        self.lines.iter().map(|line| line.expose_secret().len() - 1).max().unwrap_or(0)
    }

    /// The text of `bytes[start..end]`, with blots for what is part of a secret anywhere in `bytes`.
    fn hide(&self, bytes: &[u8], start: usize, end: usize) -> String {
        let mut hidden = vec![false; bytes.len()];
        for line in self.lines.iter().map(|line| line.expose_secret().as_bytes()) {
            for (place, _) in bytes.windows(line.len()).enumerate().filter(|(_, window)| *window == line) {
                hidden[place..place + line.len()].fill(true);
            }
        }
        let (shown, hidden) = (&bytes[start..end], &hidden[start..end]);
        let mut text = String::new();
        let mut place = 0;
        for run in hidden.chunk_by(|a, b| a == b) {
            if run[0] {
                text.push_str(BLOT);
            } else {
                text.push_str(&String::from_utf8_lossy(&shown[place..place + run.len()]));
            }
            place += run.len();
        }
        text
    }
}

impl Reading<'_> {
    /// The command that reads it from a file, in Base64.
    pub(super) fn command(&self, path: &str) -> String {
        let from = if self.cut {
            (TAIL + self.blots.reach()).to_string()
        } else {
            format!("+{}", self.offset.saturating_sub(self.before() as u64).saturating_add(1))
        };
        format!("tail -c {from} {path} 2>/dev/null | head -c {} | base64 -w0", self.most())
    }

    /// What can be told of the `bytes` that were read, and the offset of the next look. While more is written, the end
    /// is left for later as far as it may be the beginning of a secret; a secret has no line break in it.
    pub(super) fn take(&self, bytes: &[u8], has_ended: bool) -> (String, u64) {
        if self.cut {
            return (self.blots.hide(bytes, bytes.len().saturating_sub(TAIL), bytes.len()), self.offset);
        }
        let start = self.before().min(bytes.len());
        let end = if has_ended && bytes.len() < self.most() {
            bytes.len()
        } else {
            let lines = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |place| place + 1);
            bytes.len().saturating_sub(self.blots.reach()).max(lines).max(start)
        };
        (self.blots.hide(bytes, start, end), self.offset.saturating_add((end - start) as u64))
    }

    /// How much is read again, in bytes.
    fn before(&self) -> usize {
        usize::try_from(self.offset).unwrap_or(usize::MAX).min(self.blots.reach())
    }

    fn most(&self) -> usize {
        if self.cut { TAIL + self.blots.reach() } else { self.before() + PIECE + self.blots.reach() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "s3cret-of-the-test";

    fn blots(secret: &str) -> Blots {
        Blots::of(&[("TOKEN".parse().unwrap(), SecretString::from(secret.to_owned()))])
    }

    /// What `tail` and `head` would read of `written`.
    fn read<'a>(reading: &Reading<'_>, written: &'a [u8]) -> &'a [u8] {
        let command = reading.command("/file");
        let words: Vec<&str> = command.split(' ').collect();
        let from = match words[2].strip_prefix('+') {
            Some(place) => place.parse::<usize>().unwrap() - 1,
            None => written.len().saturating_sub(words[2].parse().unwrap()),
        };
        let most: usize = words[8].parse().unwrap();
        let rest = &written[from.min(written.len())..];
        &rest[..rest.len().min(most)]
    }

    /// All pieces of an output of which the looks saw the first bytes, as many as `seen` says.
    fn pieces(blots: &Blots, written: &[u8], seen: &[usize]) -> Vec<String> {
        let (mut offset, mut pieces) = (0, Vec::new());
        let mut look = |so_far: &[u8], has_ended: bool| {
            let reading = Reading { offset, cut: false, blots };
            let (text, next) = reading.take(read(&reading, so_far), has_ended);
            offset = next;
            pieces.push(text.clone());
            !text.is_empty()
        };
        for &seen in seen {
            while look(&written[..seen], false) {}
        }
        while look(written, true) {}
        pieces
    }

    /// A piece that ends within a secret has a blot, and so has the next one.
    fn joined(pieces: &[String]) -> String {
        let mut text = pieces.concat();
        while text.contains("******") {
            text = text.replace("******", BLOT);
        }
        text
    }

    #[test]
    fn a_secret_is_hidden_wherever_a_look_ends() {
        let text = format!("before\nthe token is {SECRET} and\nmore {SECRET}{SECRET}\nafter");
        let plain = "before\nthe token is *** and\nmore ***\nafter";
        for seen in 0..=text.len() {
            let told = pieces(&blots(SECRET), text.as_bytes(), &[seen]);
            assert_eq!(joined(&told), plain, "{seen}: {told:?}");
            assert!(told.iter().all(|piece| !piece.contains("s3c") && !piece.contains("test")), "{seen}: {told:?}");
        }
    }

    #[test]
    fn a_secret_is_hidden_wherever_a_full_piece_ends_with_lines_or_without() {
        for end in ["", "\n"] {
            for before in PIECE - 2 * SECRET.len()..PIECE + 2 * SECRET.len() {
                let text = format!("{}{SECRET}{}", format!("{}{end}", "x".repeat(99)).repeat(200), "y".repeat(40_000));
                let text = &text[text.find(SECRET).unwrap() - before..];
                let told = pieces(&blots(SECRET), text.as_bytes(), &[text.len()]);
                assert_eq!(joined(&told), text.replace(SECRET, BLOT), "{before}");
            }
        }
    }

    #[test]
    fn a_secret_longer_than_a_piece_and_one_of_several_lines_are_hidden() {
        let long = "long".repeat(8 * 1024);
        let text = format!("{}{long}{}", "x".repeat(10_000), "y".repeat(10_000));
        let told = pieces(&blots(&long), text.as_bytes(), &[20_000, 43_000]);
        assert_eq!(joined(&told), text.replace(&long, BLOT));
        let key = "-----BEGIN KEY-----\nAAAABBBB\nCC\n-----END KEY-----";
        let told = pieces(&blots(key), format!("{key}\nrest").as_bytes(), &[3, 24, 40]);
        assert_eq!(joined(&told), "***\n***\nCC\n***\nrest");
    }

    #[test]
    fn what_is_written_is_told_at_once_but_for_what_may_be_a_secret() {
        assert_eq!(pieces(&Blots::none(), b"progress ...", &[10])[0], "progress .");
        assert_eq!(pieces(&blots(SECRET), b"a line\nthe next\n", &[7])[0], "a line\n");
        assert_eq!(pieces(&blots(SECRET), b"a line\nthe next\n", &[10])[0], "a line\n");
    }

    #[test]
    fn the_tail_of_a_long_output_does_not_begin_in_a_secret() {
        let blots = blots(SECRET);
        let reading = Reading { offset: 300_000, cut: true, blots: &blots };
        for after in TAIL - SECRET.len()..=TAIL {
            let written = format!("{}{SECRET}{}", "x".repeat(300_000), "y".repeat(after));
            let (text, offset) = reading.take(read(&reading, written.as_bytes()), true);
            let blot = if after == TAIL { "" } else { "***" };
            assert_eq!((text, offset), (format!("{blot}{}", "y".repeat(after)), 300_000), "{after}");
        }
    }
}
