//! The frames of AMQP 0-9-1 (its 2.3.5 and 4.2), as far as somebody else's words stand in them.

use std::mem;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Type, channel and size of the payload.
const HEAD: usize = 7;

/// The octet after the payload.
const END: usize = 1;

/// Payloads of methods and headers are not larger than a broker's `frame_max`; beyond this it is no AMQP.
const PAYLOAD_MAX: usize = 16 * 1024 * 1024;

/// The class of the methods that carry messages.
const BASIC: u16 = 60;
const RETURN: u16 = 50;
const DELIVER: u16 = 60;
const GET_OK: u16 = 71;

/// Tables and arrays that may lie in one another; what lies deeper is handed on as bytes.
const DEPTH: usize = 16;

/// Cuts what arrives into frames. What is no AMQP goes through as it is.
#[derive(Default)]
pub(super) struct Frames {
    ready: Vec<u8>,
    /// How much of `ready` was given.
    given: usize,
    /// A frame that is not whole yet.
    partial: Vec<u8>,
    /// Bytes of a body that are still to come.
    through: usize,
    is_foreign: bool,
}

impl Frames {
    /// Hand on what is ready.
    pub(super) fn give(&mut self, target: &mut [u8]) -> usize {
        let rest = self.ready.get(self.given..).unwrap_or_default();
        let count = rest.len().min(target.len());
        if let (Some(target), Some(rest)) = (target.get_mut(..count), rest.get(..count)) {
            target.copy_from_slice(rest);
        }
        self.given = self.given.saturating_add(count);
        if self.given >= self.ready.len() {
            self.ready.clear();
            self.given = 0;
        }
        count
    }

    /// Take what arrived.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wanted = self.wanted();
            let (now, later) = bytes.split_at(wanted.min(bytes.len()));
            bytes = later;
            if self.is_foreign || self.through > 0 {
                self.ready.extend_from_slice(now);
                self.through = self.through.saturating_sub(now.len());
                continue;
            }
            self.partial.extend_from_slice(now);
            if now.len() == wanted {
                self.turn();
            }
        }
    }

    /// Nothing more will arrive; returns whether there was a part of a frame, which is handed on as it is.
    pub(super) fn end(&mut self) -> bool {
        self.ready.append(&mut self.partial);
        !self.ready.is_empty()
    }

    /// How many bytes there are until something has to be decided.
    fn wanted(&self) -> usize {
        if self.is_foreign {
            return usize::MAX;
        }
        if self.through > 0 {
            return self.through;
        }
        let whole = self.head().map_or(HEAD, |(_, size)| HEAD.saturating_add(size).saturating_add(END));
        whole.saturating_sub(self.partial.len())
    }

    fn head(&self) -> Option<(u8, usize)> {
        let [kind, _, _, size @ ..] = self.partial.first_chunk::<HEAD>()?;
        Some((*kind, usize::try_from(u32::from_be_bytes(*size)).ok()?))
    }

    /// The head is there, or the whole frame.
    fn turn(&mut self) {
        let Some((kind, size)) = self.head() else { return };
        match kind {
            METHOD | HEADER if size <= PAYLOAD_MAX => {
                let end = HEAD.saturating_add(size);
                if self.partial.len() <= end {
                    return;
                }
                if let Some(payload) = self.partial.get_mut(HEAD..end) {
                    mend(kind, payload);
                }
            }
            BODY | HEARTBEAT => self.through = size.saturating_add(END),
            _ => self.is_foreign = true,
        }
        self.ready.append(&mut self.partial);
    }
}

/// Mend what the client could not read, in place: everything keeps its length. What cannot be followed is left as it is.
fn mend(kind: u8, payload: &mut [u8]) {
    let mut cursor = Cursor { rest: payload };
    let mended = if kind == METHOD { cursor.method() } else { cursor.header() };
    if mended.is_none() {
        tracing::debug!(kind, "a frame that is not as AMQP has it");
    }
}

struct Cursor<'a> {
    rest: &'a mut [u8],
}

impl<'a> Cursor<'a> {
    fn bytes(&mut self, count: usize) -> Option<&'a mut [u8]> {
        let (bytes, rest) = mem::take(&mut self.rest).split_at_mut_checked(count)?;
        self.rest = rest;
        Some(bytes)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.first_chunk().copied()
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.bytes(count).map(drop)
    }

    fn method(&mut self) -> Option<()> {
        let class = u16::from_be_bytes(self.number()?);
        let method = u16::from_be_bytes(self.number()?);
        match (class, method) {
            // The consumer, the delivery's number and whether it was delivered before.
            (BASIC, DELIVER) => {
                self.text()?;
                self.skip(9)?;
            }
            (BASIC, GET_OK) => self.skip(9)?,
            (BASIC, RETURN) => {
                self.skip(2)?;
                self.text()?;
            }
            _ => return Some(()),
        }
        // The exchange and the routing key.
        self.text()?;
        self.text()
    }

    fn header(&mut self) -> Option<()> {
        // Class, weight and the size of the body.
        self.skip(12)?;
        let flags = u16::from_be_bytes(self.number()?);
        let has = |bit: u32| flags & (0x8000 >> bit) != 0;
        for bit in (0..14).filter(|bit| has(*bit)) {
            match bit {
                2 => self.table(0)?,
                3 | 4 => self.skip(1)?,
                9 => self.skip(8)?,
                _ => self.text()?,
            }
        }
        Some(())
    }

    /// A short string.
    fn text(&mut self) -> Option<()> {
        let [length] = self.number()?;
        legible(self.bytes(usize::from(length))?);
        Some(())
    }

    fn long(&mut self) -> Option<&'a mut [u8]> {
        let length = u32::from_be_bytes(self.number()?);
        self.bytes(usize::try_from(length).ok()?)
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        let mut fields = Cursor { rest: self.long()? };
        while !fields.rest.is_empty() {
            fields.text()?;
            fields.value(depth)?;
        }
        Some(())
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        let mut values = Cursor { rest: self.long()? };
        while !values.rest.is_empty() {
            values.value(depth)?;
        }
        Some(())
    }

    /// A value, by RabbitMQ's letters (<https://www.rabbitmq.com/amqp-0-9-1-errata>, section 3).
    fn value(&mut self, depth: usize) -> Option<()> {
        let letter = self.bytes(1)?.first_mut()?;
        match *letter {
            b'V' => Some(()),
            b't' | b'b' | b'B' => self.skip(1),
            b's' | b'U' | b'u' => self.skip(2),
            b'I' | b'i' | b'f' => self.skip(4),
            b'D' => self.skip(5),
            b'l' | b'L' | b'd' | b'T' => self.skip(8),
            b'S' | b'x' => self.long().map(drop),
            b'F' | b'A' if depth == DEPTH => {
                *letter = b'x';
                self.long().map(drop)
            }
            b'F' => self.table(depth.saturating_add(1)),
            b'A' => self.array(depth.saturating_add(1)),
            _ => None,
        }
    }
}

/// Each byte that is no UTF-8 becomes a question mark.
fn legible(mut text: &mut [u8]) {
    while let Err(error) = str::from_utf8(text) {
        let Some((_, rest)) = text.split_at_mut_checked(error.valid_up_to()) else { return };
        let wrong = error.error_len().unwrap_or(rest.len());
        let Some((wrong, rest)) = rest.split_at_mut_checked(wrong) else { return };
        wrong.fill(b'?');
        text = rest;
    }
}

#[cfg(test)]
mod tests;
