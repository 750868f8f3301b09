//! The protocol of a guix-daemon as strictly as the daemon itself takes it, from its side.

/// Kinds of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// A number of 32 bits.
    Int,
    /// A number of 64 bits.
    Long,
    Text,
    Texts,
    Pairs,
    /// A nar as it is.
    Nar,
    /// A list of what is known of substitutable paths.
    Substitutables,
}

use Field::{Int, Long, Nar, Pairs, Substitutables, Text, Texts};

/// Frames.
pub(crate) const NEXT: u64 = 0x6f6c_6d67;
pub(crate) const READ: u64 = 0x6461_7461;
pub(crate) const WRITE: u64 = 0x6461_7416;
pub(crate) const LAST: u64 = 0x616c_7473;
pub(crate) const ERROR: u64 = 0x6378_7470;

/// Gives the arguments and the results of an operation.
pub(crate) fn operation(code: u64) -> (&'static [Field], &'static [Field]) {
    match code {
        1 | 3 | 10 | 11 | 12 => (&[Text], &[Int]),
        4 | 29 => (&[Text], &[Text]),
        5 | 6 | 22 | 33 => (&[Text], &[Texts]),
        7 => (&[Text, Int, Int, Text, Nar], &[Text]),
        8 => (&[Text, Text, Texts], &[Text]),
        9 => (&[Texts, Int], &[Int]),
        14 => (&[], &[Pairs]),
        16 => (&[Text, Int], &[Int]),
        19 => (&[Int, Int, Int, Int, Int, Int, Int, Int, Int, Pairs], &[]),
        20 => (&[Int, Texts, Int, Long, Int, Int, Int], &[Texts, Long, Long]),
        24 | 27 | 80 | 81 => (&[], &[Texts]),
        26 => (&[Text], &[Text, Text, Texts, Int, Long]),
        30 => (&[Texts], &[Substitutables]),
        31 | 32 => (&[Texts], &[Texts]),
        34 => (&[], &[Int]),
        35 => (&[Int, Int], &[Int]),
        other => panic!("invalid operation {other}"),
    }
}

/// Reads bytes that may not all be there yet: nothing means that more are needed.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
    pub(crate) at: usize,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn long(&mut self) -> Option<u64> {
        let bytes = self.bytes.get(self.at..self.at + 8)?;
        self.at += 8;
        Some(u64::from_le_bytes(bytes.try_into().unwrap()))
    }

    pub(crate) fn int(&mut self) -> Option<u64> {
        let number = self.long()?;
        assert!(u32::try_from(number).is_ok(), "{number:#x} is no int: a daemon hangs up");
        Some(number)
    }

    pub(crate) fn text(&mut self) -> Option<&'b [u8]> {
        let length = usize::try_from(self.int()?).unwrap();
        let padded = length.next_multiple_of(8);
        let bytes = self.bytes.get(self.at..self.at + padded)?;
        assert!(bytes[length..].iter().all(|&byte| byte == 0), "non-zero padding");
        self.at += padded;
        Some(&bytes[..length])
    }

    pub(crate) fn texts(&mut self) -> Option<Vec<&'b [u8]>> {
        (0..self.int()?).map(|_| self.text()).collect()
    }

    fn nar(&mut self) -> Option<()> {
        self.keyword(b"nix-archive-1")?;
        self.node()
    }

    fn keyword(&mut self, word: &[u8]) -> Option<()> {
        assert_eq!(self.text()?, word);
        Some(())
    }

    fn node(&mut self) -> Option<()> {
        self.keyword(b"(")?;
        self.keyword(b"type")?;
        match self.text()? {
            b"regular" => {
                let mut word = self.text()?;
                if word == b"executable" {
                    self.keyword(b"")?;
                    word = self.text()?;
                }
                assert_eq!(word, b"contents");
                self.text()?;
                self.keyword(b")")
            }
            b"symlink" => {
                self.keyword(b"target")?;
                self.text()?;
                self.keyword(b")")
            }
            b"directory" => loop {
                match self.text()? {
                    b")" => return Some(()),
                    b"entry" => {
                        self.keyword(b"(")?;
                        self.keyword(b"name")?;
                        self.text()?;
                        self.keyword(b"node")?;
                        self.node()?;
                        self.keyword(b")")?;
                    }
                    other => panic!("{other:?} in a directory"),
                }
            },
            other => panic!("{other:?} is no kind of file"),
        }
    }

    pub(crate) fn field(&mut self, field: Field) -> Option<()> {
        match field {
            Int => self.int().map(drop),
            Long => self.long().map(drop),
            Text => self.text().map(drop),
            Texts => self.texts().map(drop),
            Pairs => (0..self.int()?).try_for_each(|_| {
                self.text()?;
                self.text().map(drop)
            }),
            Nar => self.nar(),
            Substitutables => (0..self.int()?).try_for_each(|_| {
                self.text()?;
                self.text()?;
                self.texts()?;
                self.long()?;
                self.long().map(drop)
            }),
        }
    }

    /// Reads a request and gives its operation.
    pub(crate) fn request(&mut self) -> Option<u64> {
        let code = self.int()?;
        operation(code).0.iter().try_for_each(|&field| self.field(field))?;
        Some(code)
    }
}
