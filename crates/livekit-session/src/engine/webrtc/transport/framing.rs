// SPDX-License-Identifier: MIT OR Apache-2.0

//! Datagrams in a TCP connection: each follows its length, 16 bits in network order (RFC 4571 §2); and the messages of
//! TURN, which say how long they are (RFC 8656 §12.5, RFC 8489 §5). Pure.

/// The longest datagram taken; what str0m is given must fit into the engine's receive buffer, and nothing of WebRTC is
/// longer than an Ethernet frame.
pub(super) const MAX_DATAGRAM: usize = 2048;
/// The same with what TURN adds to it.
pub(super) const MAX_MESSAGE: usize = MAX_DATAGRAM + 128;
/// Room for some datagrams, so that a burst costs one read.
const BUFFER: usize = 8 * 1024;

/// How a message says where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// RFC 4571.
    Length,
    /// STUN messages and channel data, the latter padded to four bytes.
    Turn,
}

/// What a message's first bytes say.
enum Head {
    Incomplete,
    /// Where the datagram begins and ends, and where the next message begins.
    Found {
        from: usize,
        to: usize,
        next: usize,
    },
    /// No message begins like this.
    Foreign,
}

impl Format {
    fn head(self, bytes: &[u8]) -> Head {
        match (self, bytes) {
            (Self::Length, [high, low, ..]) => {
                let end = 2 + usize::from(u16::from_be_bytes([*high, *low]));
                Head::Found { from: 2, to: end, next: end }
            }
            (Self::Turn, [first, _, high, low, ..]) => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                match first >> 6 {
                    0 => Head::Found { from: 0, to: 20 + length, next: 20 + length },
                    1 => Head::Found { from: 0, to: 4 + length, next: 4 + length.next_multiple_of(4) },
                    _ => Head::Foreign,
                }
            }
            _ => Head::Incomplete,
        }
    }
}

/// Appends a datagram and its length. False = it is too long for one.
pub(super) fn frame(out: &mut Vec<u8>, datagram: &[u8]) -> bool {
    let Ok(length) = u16::try_from(datagram.len()) else { return false };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(datagram);
    true
}

/// Finds the datagrams in what a connection delivers, in whatever pieces that comes.
///
/// One that is longer than [`MAX_MESSAGE`] is passed over without being kept, so a hostile length costs nothing.
pub(super) struct Deframer {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Bytes yet to come of a datagram that is too long.
    skip: usize,
    format: Format,
    lost: bool,
}

impl Deframer {
    /// For ICE over TCP.
    pub(super) fn rfc4571() -> Self {
        Self::new(Format::Length)
    }

    /// For TURN over TCP or TLS. A message that is too long to be one of those that carry media is passed over too.
    pub(super) fn turn() -> Self {
        Self::new(Format::Turn)
    }

    fn new(format: Format) -> Self {
        Self { buffer: vec![0; BUFFER].into_boxed_slice(), start: 0, end: 0, skip: 0, format, lost: false }
    }

    /// What came is no message; nothing after it can be told apart either.
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

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
            let bytes = self.buffer.get(self.start..self.end)?;
            let (from, to, next) = match self.format.head(bytes) {
                Head::Found { from, to, next } => (from, to, next),
                Head::Incomplete => return None,
                Head::Foreign => {
                    self.lost = true;
                    self.start = self.end;
                    return None;
                }
            };
            if to - from > MAX_MESSAGE {
                self.skip = next;
                continue;
            }
            if bytes.len() < next {
                return None;
            }
            let begin = self.start;
            self.start += next;
            // An empty one (RFC 4571 §2) says nothing.
            if to > from {
                return self.buffer.get(begin + from..begin + to);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pieces of these lengths, over and over, and collects what comes out.
    fn deframe(stream: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
        deframe_with(&mut Deframer::rfc4571(), stream, pieces)
    }

    fn deframe_with(deframer: &mut Deframer, stream: &[u8], pieces: &[usize]) -> Vec<Vec<u8>> {
        let (mut found, mut rest) = (Vec::new(), stream);
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
        for length in [MAX_MESSAGE + 1, 40_000, 65_535] {
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

    /// A STUN message, or channel data without its padding, with a body of that length.
    fn turn_message(first: u8, length: usize) -> Vec<u8> {
        let mut message = vec![first, 1];
        message.extend(u16::try_from(length).unwrap().to_be_bytes());
        message.resize(if first < 0x40 { 20 } else { 4 } + length, first);
        message
    }

    #[test]
    fn turn_messages_come_out_without_their_padding() {
        let messages: Vec<Vec<u8>> =
            [(0, 0), (0x40, 1), (1, 64), (0x7f, 0), (0x40, 1150), (0x41, 3), (0x40, 4), (0, 1200)]
                .map(|(first, length)| turn_message(first, length))
                .into();
        let mut stream = Vec::new();
        for message in &messages {
            stream.extend_from_slice(message);
            stream.resize(stream.len().next_multiple_of(4), 0xff);
        }
        stream.extend(turn_message(0x40, 60_000));
        stream.extend(turn_message(0, 8));
        for pieces in [&[1][..], &[2, 3], &[1149], &[BUFFER]] {
            let found = deframe_with(&mut Deframer::turn(), &stream, pieces);
            assert_eq!(found[..messages.len()], messages, "{pieces:?}");
            assert_eq!(found[messages.len()..], [turn_message(0, 8)], "{pieces:?}");
        }
    }

    #[test]
    fn what_is_not_turn_is_given_up() {
        for foreign in [&b"\x80HTTP"[..], &[0xff; 5000]] {
            let mut stream = turn_message(0, 4);
            stream.extend_from_slice(foreign);
            let mut deframer = Deframer::turn();
            assert_eq!(deframe_with(&mut deframer, &stream, &[BUFFER]), [turn_message(0, 4)]);
            assert!(deframer.is_lost());
        }
    }
}
