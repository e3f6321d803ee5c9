//! Numbers in a header. What lies beyond the bytes is `None`, never a panic.

/// Bytes and the ways to read numbers from them.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// `size` bytes from `at`.
    pub(super) fn slice(self, at: usize, size: usize) -> Option<&'a [u8]> {
        self.0.get(at..at.checked_add(size)?)
    }

    fn array<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.slice(at, N)?.try_into().ok()
    }

    /// 32 bits, big-endian.
    pub(super) fn be32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    /// 64 bits, big-endian.
    pub(super) fn be64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_be_bytes)
    }

    /// 16 bits, little-endian.
    pub(super) fn le16(self, at: usize) -> Option<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    /// 32 bits, little-endian.
    pub(super) fn le32(self, at: usize) -> Option<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    /// 64 bits, little-endian.
    pub(super) fn le64(self, at: usize) -> Option<u64> {
        self.array(at).map(u64::from_le_bytes)
    }
}
