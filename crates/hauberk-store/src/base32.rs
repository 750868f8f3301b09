//! The base-32 spelling of Nix and Guix: its own alphabet, least significant bits last, no padding.

/// The 32 digits, in order of value; `e`, `o`, `t` and `u` are left out on purpose.
pub const ALPHABET: &[u8; 32] = b"0123456789abcdfghijklmnpqrsvwxyz";

/// The value of each ASCII byte as a digit, 255 for the others.
const VALUES: [u8; 256] = {
    let mut values = [255; 256];
    let mut digit = 0;
    while digit < 32 {
        values[ALPHABET[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

/// Why a text is not nix-base32.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No number of bytes is spelt with that many digits.
    #[error("{length} base-32 digits are not a whole number of bytes")]
    Length {
        /// Digits given.
        length: usize,
    },
    /// A byte outside the alphabet.
    #[error("byte {byte:#04x} at position {position} is not a base-32 digit")]
    Digit {
        /// The byte found.
        byte: u8,
        /// Its position, from 0.
        position: usize,
    },
    /// The bits beyond the last byte are not zero, so the spelling is not the only one.
    #[error("left-over bits of the first base-32 digit are not zero")]
    Excess,
}

/// Gives the number of digits that spell `bytes` bytes.
pub const fn encoded_length(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Tells whether `byte` is a base-32 digit.
pub const fn is_digit(byte: u8) -> bool {
    VALUES[byte as usize] != 255
}

/// Tells whether all bytes are base-32 digits; written so that they are looked at together.
pub(crate) fn are_digits<const N: usize>(bytes: &[u8; N]) -> bool {
    bytes.iter().fold(true, |all, &byte| {
        let digit = byte.wrapping_sub(b'0') < 10;
        let letter = byte.wrapping_sub(b'a') < 26;
        let left_out = (byte == b'e') | (byte == b'o') | (byte == b't') | (byte == b'u');
        all & (digit | (letter & !left_out))
    })
}

/// Spells `bytes`.
pub fn encode(bytes: &[u8]) -> String {
    let length = encoded_length(bytes.len());
    let mut text = String::with_capacity(length);
    for position in (0..length).rev() {
        let bit = position * 5;
        let (byte, shift) = (bit / 8, bit % 8);
        let low = bytes[byte] >> shift;
        let high = match bytes.get(byte + 1) {
            Some(next) if shift > 3 => next << (8 - shift),
            _ => 0,
        };
        text.push(char::from(ALPHABET[usize::from((low | high) & 0x1f)]));
    }
    text
}

/// Reads `text` back; only the spelling that [`encode`] writes is accepted.
///
/// # Errors
/// A length no encoding has, a byte outside the alphabet, or left-over bits that are not zero.
pub fn decode(text: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = vec![0; text.len() * 5 / 8];
    decode_into(text, &mut bytes)?;
    Ok(bytes)
}

/// Reads `text` back into `bytes`, whose length must be what the text spells.
///
/// # Errors
/// As [`decode`], and [`DecodeError::Length`] when `bytes` has another length.
pub fn decode_into(text: &[u8], bytes: &mut [u8]) -> Result<(), DecodeError> {
    if encoded_length(bytes.len()) != text.len() {
        return Err(DecodeError::Length { length: text.len() });
    }
    bytes.fill(0);
    for (index, &digit) in text.iter().rev().enumerate() {
        let value = VALUES[usize::from(digit)];
        if value == 255 {
            return Err(DecodeError::Digit { byte: digit, position: text.len() - 1 - index });
        }
        let (byte, shift) = (index * 5 / 8, index * 5 % 8);
        bytes[byte] |= value << shift;
        let carry = if shift > 3 { value >> (8 - shift) } else { 0 };
        match bytes.get_mut(byte + 1) {
            Some(next) => *next |= carry,
            None if carry != 0 => return Err(DecodeError::Excess),
            None => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_spellings() {
        let digest = [
            0xb0, 0xd5, 0x1c, 0x58, 0xc8, 0xb9, 0xc1, 0xf4, 0x58, 0xfa, 0xdf, 0x16, 0xc7, 0xd3, 0x75, 0x63,
            0x0e, 0xf5, 0x1d, 0xa4, 0xdf, 0x81, 0x91, 0x58, 0x93, 0xb0, 0x5c, 0x0f, 0xa4, 0xed, 0x8b, 0xc6,
        ];
        let text = "1ilbxnj0yp5hjdc930fzlhfza3k3fp9wf5nzz9cg9hdrr1c1rmdh";
        assert_eq!(encode(&digest), text);
        assert_eq!(decode(text.as_bytes()).as_deref(), Ok(&digest[..]));
    }

    #[test]
    fn digits_together_as_one_by_one() {
        for byte in 0..=255 {
            assert_eq!(are_digits(&[b'0', byte, b'z']), is_digit(byte), "{byte}");
        }
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        assert_eq!(decode(b"z0"), Err(DecodeError::Excess));
        assert_eq!(decode(b"0"), Err(DecodeError::Length { length: 1 }));
        assert_eq!(decode(b"e0"), Err(DecodeError::Digit { byte: b'e', position: 0 }));
        assert_eq!(decode(b""), Ok(vec![]));
    }

    proptest! {
        #[test]
        fn round_trip(bytes: Vec<u8>) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Ok(bytes));
        }

        #[test]
        fn what_is_read_is_written_back(text in "[0-9a-z]{0,60}") {
            if let Ok(bytes) = decode(text.as_bytes()) {
                prop_assert_eq!(encode(&bytes), text);
            }
        }
    }
}
