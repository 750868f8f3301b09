//! Base 64 without branches or look-ups on the digits, for secrets are written in it.

use zeroize::Zeroizing;

/// Gives all ones when `low <= value <= high`, else zero.
const fn in_range(value: u8, low: u8, high: u8) -> u8 {
    let below = (value as i16 - low as i16) >> 8;
    let above = (high as i16 - value as i16) >> 8;
    (!(below | above)) as u8
}

const fn digit(value: u8) -> u8 {
    (value.wrapping_add(b'A') & in_range(value, 0, 25))
        | (value.wrapping_sub(26).wrapping_add(b'a') & in_range(value, 26, 51))
        | (value.wrapping_sub(52).wrapping_add(b'0') & in_range(value, 52, 61))
        | (b'+' & in_range(value, 62, 62))
        | (b'/' & in_range(value, 63, 63))
}

/// Gives a digit's value, and all ones when it is a digit.
const fn value(digit: u8) -> (u8, u8) {
    let (upper, lower) = (in_range(digit, b'A', b'Z'), in_range(digit, b'a', b'z'));
    let (number, plus, slash) =
        (in_range(digit, b'0', b'9'), in_range(digit, b'+', b'+'), in_range(digit, b'/', b'/'));
    let value = (digit.wrapping_sub(b'A') & upper)
        | (digit.wrapping_sub(b'a').wrapping_add(26) & lower)
        | (digit.wrapping_sub(b'0').wrapping_add(52) & number)
        | (62 & plus)
        | (63 & slash);
    (value, upper | lower | number | plus | slash)
}

/// Appends the padded spelling of `bytes`; `out` should have room, or a copy stays behind.
pub(super) fn encode(bytes: &[u8], out: &mut String) {
    for group in bytes.chunks(3) {
        let byte = |index: usize| group.get(index).copied().unwrap_or_default();
        let values = [
            byte(0) >> 2,
            (byte(0) << 4 | byte(1) >> 4) & 63,
            (byte(1) << 2 | byte(2) >> 6) & 63,
            byte(2) & 63,
        ];
        for (index, value) in values.into_iter().enumerate() {
            out.push(if index <= group.len() { char::from(digit(value)) } else { '=' });
        }
    }
}

/// Reads `N` bytes; the padding may be missing, but no bits may be left over.
pub(super) fn decode<const N: usize>(text: &[u8]) -> Option<Zeroizing<[u8; N]>> {
    let digits = (N * 8).div_ceil(6);
    let (text, padding) = text.split_at_checked(digits)?;
    if !matches!((padding, N % 3), (b"", _) | (b"==", 1) | (b"=", 2)) {
        return None;
    }
    let mut bytes = Zeroizing::new([0; N]);
    let (mut bits, mut count, mut valid, mut at) = (0_u32, 0, 0xff, 0);
    for &digit in text {
        let (value, known) = value(digit);
        valid &= known;
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes[at] = (bits >> count) as u8;
            bits &= (1 << count) - 1;
            at += 1;
        }
    }
    (valid == 0xff && bits == 0 && at == N).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn digits_are_those_of_everyone() {
        for byte in 0..=255_u8 {
            let expected = base64::alphabet::STANDARD.as_str().bytes().position(|digit| digit == byte);
            let (value, known) = value(byte);
            assert_eq!((known == 0xff).then_some(usize::from(value)), expected, "{byte}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_crate(bytes: [u8; 32], longer: [u8; 64], short: [u8; 3]) {
            let spell = |bytes: &[u8]| {
                let mut text = String::new();
                encode(bytes, &mut text);
                text
            };
            for bytes in [&bytes[..], &longer, &short] {
                prop_assert_eq!(spell(bytes), STANDARD.encode(bytes));
            }
            prop_assert_eq!(decode::<32>(spell(&bytes).as_bytes()).map(|found| *found), Some(bytes));
            prop_assert_eq!(decode::<64>(spell(&longer).trim_end_matches('=').as_bytes()).map(|found| *found), Some(longer));
            prop_assert_eq!(decode::<3>(spell(&short).as_bytes()).map(|found| *found), Some(short));
        }

        #[test]
        fn refuses_what_the_crate_refuses(text in "[A-Za-z0-9+/=.]{40,46}") {
            let theirs = STANDARD.decode(&text).ok().filter(|bytes| bytes.len() == 32);
            if let Some(bytes) = decode::<32>(text.as_bytes()) {
                let mut padded = text;
                while padded.len() < 44 {
                    padded.push('=');
                }
                prop_assert_eq!(STANDARD.decode(padded).ok(), Some(bytes.to_vec()));
            } else {
                prop_assert_eq!(theirs, None);
            }
        }
    }
}
