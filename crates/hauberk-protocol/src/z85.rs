//! Z85, ZeroMQ's text form of keys (ZeroMQ RFC 32), for 32 bytes.
//!
//! libzmq's own decoder accepts characters outside the alphabet, so keys are read here.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 85] =
    b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// What each character stands for; 255 for one outside the alphabet. Every message that arrives names its sender's key.
const DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut digit = 0;
    while digit < ALPHABET.len() {
        digits[ALPHABET[digit] as usize] = digit as u8;
        digit += 1;
    }
    digits
};

/// Characters in a key's text.
pub(crate) const TEXT_LENGTH: usize = 40;

/// Writes a key as text.
pub(crate) fn encode(key: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(TEXT_LENGTH));
    for chunk in key.chunks_exact(4) {
        let value = chunk.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        for power in [85 * 85 * 85 * 85, 85 * 85 * 85, 85 * 85, 85, 1] {
            text.push(char::from(ALPHABET[(value / power % 85) as usize]));
        }
    }
    text
}

/// Reads a key; `None` when the text is not of 40 characters of the alphabet, or a group of five exceeds 32 bits.
pub(crate) fn decode(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let text = text.as_bytes();
    if text.len() != TEXT_LENGTH {
        return None;
    }
    let mut key = Zeroizing::new([0; 32]);
    for (group, out) in text.chunks_exact(5).zip(key.chunks_exact_mut(4)) {
        let mut value = 0_u64;
        for character in group {
            let digit = DIGITS[usize::from(*character)];
            if digit == u8::MAX {
                return None;
            }
            value = value * 85 + u64::from(digit);
        }
        out.copy_from_slice(&u32::try_from(value).ok()?.to_be_bytes());
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_round_trip_and_libzmq_writes_the_same(key: [u8; 32]) {
            let text = encode(&key);
            prop_assert_eq!(text.as_str(), zmq::z85_encode(&key).unwrap());
            prop_assert_eq!(*decode(&text).unwrap(), key);
        }

        #[test]
        fn junk_is_refused_or_round_trips(text in "\\PC{0,45}") {
            if let Some(key) = decode(&text) {
                let again = encode(&key);
                prop_assert_eq!(again.as_str(), text);
            }
        }
    }

    #[test]
    fn what_libzmq_lets_pass_is_refused() {
        assert!(decode(&"#".repeat(40)).is_none(), "more than 32 bits");
        assert!(decode(&" ".repeat(40)).is_none(), "outside the alphabet");
        assert!(decode("").is_none());
        assert!(decode(&"0".repeat(41)).is_none());
    }
}
