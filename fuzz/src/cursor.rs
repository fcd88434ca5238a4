//! Reads decisions off the input, so that small changes of the input are small changes of what happens.

/// The rest of the input. At its end every number is 0 and every run of bytes is empty.
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }

    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.u8())
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let at = usize::from(self.u8()) % from.len().max(1);
        from.get(at).copied()
    }

    /// So many bytes of the input as its next two bytes say, and as many zeros as the two after them say.
    pub fn padded(&mut self) -> Vec<u8> {
        let (len, zeros) = (usize::from(self.u16()), usize::from(self.u16()));
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        let mut bytes = taken.to_vec();
        bytes.resize((bytes.len() + zeros).min(65_600), 0);
        bytes
    }
}
