// SPDX-License-Identifier: MIT OR Apache-2.0

//! Datagrams in a TCP connection: each follows its length, 16 bits in network order (RFC 4571 §2). Pure.

/// The longest datagram taken; what str0m is given must fit into the engine's receive buffer, and nothing of WebRTC is
/// longer than an Ethernet frame.
pub(super) const MAX_DATAGRAM: usize = 2048;
/// Room for some datagrams, so that a burst costs one read.
const BUFFER: usize = 8 * 1024;
const HEADER: usize = 2;

/// Appends a datagram and its length. False = it is too long for one.
pub(super) fn frame(out: &mut Vec<u8>, datagram: &[u8]) -> bool {
    let Ok(length) = u16::try_from(datagram.len()) else { return false };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(datagram);
    true
}

/// Finds the datagrams in what a connection delivers, in whatever pieces that comes.
///
/// One that is longer than [`MAX_DATAGRAM`] is passed over without being kept, so a hostile length costs nothing.
pub(super) struct Deframer {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes yet to come of a datagram that is too long.
    skip: usize,
}

impl Default for Deframer {
    fn default() -> Self {
        Self { buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, skip: 0 }
    }
}

impl Deframer {
    /// Where the next bytes are to be put; never empty once [`Deframer::next`] has answered `None`.
    pub(super) fn space(&mut self) -> &mut [u8] {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    /// So many bytes were put into [`Deframer::space`].
    pub(super) fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(self.buffer.len());
    }

    /// The next whole datagram.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        loop {
            let skipped = self.skip.min(self.end - self.start);
            self.start += skipped;
            self.skip -= skipped;
            let [high, low, rest @ ..] = self.buffer.get(self.start..self.end)? else { return None };
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if length > MAX_DATAGRAM {
                self.start += HEADER;
                self.skip = length;
                continue;
            }
            if rest.len() < length {
                return None;
            }
            let from = self.start + HEADER;
            self.start = from + length;
            // An empty one (RFC 4571 §2) says nothing.
            if length > 0 {
                return self.buffer.get(from..self.start);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pieces of these lengths, over and over, and collects what comes out.
    fn deframe(stream: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
        let (mut deframer, mut found, mut rest) = (Deframer::default(), Vec::new(), stream);
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let space = deframer.space();
            assert!(!space.is_empty(), "there is always room for more");
            let count = (*pieces.next().unwrap()).min(space.len()).min(rest.len());
            space[..count].copy_from_slice(&rest[..count]);
            deframer.filled(count);
            rest = &rest[count..];
            while let Some(datagram) = deframer.next() {
                found.push(datagram.to_vec());
            }
        }
        found
    }

    fn framed(datagrams: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for datagram in datagrams {
            assert!(frame(&mut stream, datagram));
        }
        stream
    }

    #[test]
    fn a_datagram_follows_its_length() {
        let mut out = vec![9];
        assert!(frame(&mut out, &[1, 2, 3]));
        assert_eq!(out, [9, 0, 3, 1, 2, 3]);
        assert!(!frame(&mut out, &[0; 65_536]), "no length says that");
        assert_eq!(out.len(), 6);
    }

    #[test]
    fn datagrams_come_out_whole_however_they_arrive() {
        let datagrams: Vec<Vec<u8>> = [1, 20, MAX_DATAGRAM, 1150, 2, 700, 1, 1, MAX_DATAGRAM, 3]
            .iter()
            .zip(1..)
            .map(|(l, n)| vec![n; *l])
            .collect();
        let stream = framed(&datagrams);
        for pieces in [&[1][..], &[2], &[3, 1, 7], &[1149], &[BUFFER], &[5000, 1]] {
            assert_eq!(deframe(&stream, pieces), datagrams, "{pieces:?}");
        }
    }

    #[test]
    fn hostile_lengths_cost_their_own_datagram_only() {
        let mut stream = framed(&[vec![1; 10]]);
        for length in [MAX_DATAGRAM + 1, 40_000, 65_535] {
            frame(&mut stream, &vec![0xee; length]);
            frame(&mut stream, &[]);
        }
        frame(&mut stream, &[2; 10]);
        // A last one that never comes.
        stream.extend([0xff, 0xff, 1, 2, 3]);
        for pieces in [&[1][..], &[4, 9], &[BUFFER], &[60_000]] {
            assert_eq!(deframe(&stream, pieces), [[1; 10], [2; 10]], "{pieces:?}");
        }
        let empty = framed(&vec![Vec::new(); 10_000]);
        assert!(deframe(&empty, &[BUFFER]).is_empty());
    }
}
