//! ECDSA over the curve of Ed25519, with the nonces of RFC 6979, as libgcrypt computes it.
//!
//! Integers are big-endian, but a public key is a point in the form of EdDSA: y in little-endian, the top bit saying which
//! of the two x belongs to it.

use crypto_bigint::{U256, const_monty_params, modular::ConstMontyForm};
use curve25519_dalek::{
    edwards::{CompressedEdwardsY, EdwardsPoint},
    scalar::Scalar,
};
use hmac::{Hmac, KeyInit, Mac};
use zeroize::{Zeroize, Zeroizing};

const_monty_params!(
    P,
    U256,
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed",
    "The prime of the field, 2^255 - 19."
);

type Field = ConstMontyForm<P, { U256::LIMBS }>;

/// (p - 5) / 8, the exponent of a square root in this field.
const ROOT_EXPONENT: U256 =
    U256::from_be_hex("0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffd");

/// A square root of -1.
const ROOT_OF_MINUS_ONE: Field =
    Field::new(&U256::from_be_hex("2b8324804fc1df0b2b4d00993dfbd7a72f431806ad2fe478c4ee1b274a0ea0b0"));

/// The curve's constant, -121665/121666.
const D: Field =
    Field::new(&U256::from_be_hex("52036cee2b6ffe738cc740797779e89800700a4d4141d8ab75eb4dca135978a3"));

/// Gives the public key of a secret integer.
pub(super) fn public_key(secret: &[u8; 32]) -> [u8; 32] {
    let scalar = Zeroizing::new(scalar(secret));
    EdwardsPoint::mul_base(&scalar).compress().to_bytes()
}

/// Signs a SHA-256 digest and gives r and s.
pub(super) fn sign(secret: &[u8; 32], hash: &[u8; 32]) -> ([u8; 32], [u8; 32]) {
    let d = Zeroizing::new(scalar(secret));
    let z = truncated(hash);
    let mut nonces = Nonces::new(secret, hash);
    loop {
        let k = Zeroizing::new(nonces.next_nonce());
        // r is public, and so is all that follows from the compressed point.
        let Some(r) = affine_x(&EdwardsPoint::mul_base(&k).compress()) else { continue };
        let inverse = Zeroizing::new(k.invert());
        let s = *inverse * (z + r * *d);
        if r != Scalar::ZERO && s != Scalar::ZERO {
            return (reversed(r.to_bytes()), reversed(s.to_bytes()));
        }
    }
}

/// Tells whether r and s, of any length, sign a SHA-256 digest for the public key.
pub(super) fn verify(public: &[u8; 32], hash: &[u8; 32], r: &[u8], s: &[u8]) -> bool {
    let Some(point) = CompressedEdwardsY(*public).decompress() else { return false };
    let (Some(r), Some(s)) = (canonical(r), canonical(s)) else { return false };
    let inverse = s.invert();
    let (u, v) = (truncated(hash) * inverse, r * inverse);
    let sum = EdwardsPoint::vartime_double_scalar_mul_basepoint(&v, &point, &u);
    affine_x(&sum.compress()) == Some(r)
}

/// Gives a big-endian integer modulo the group's order.
fn scalar(bytes: &[u8; 32]) -> Scalar {
    let mut little = reversed(*bytes);
    let scalar = Scalar::from_bytes_mod_order(little);
    little.zeroize();
    scalar
}

/// Gives an integer from 1 to the order less 1, however many zero bytes are in front.
fn canonical(bytes: &[u8]) -> Option<Scalar> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let significant = &bytes[zeros..];
    let mut little = [0; 32];
    for (place, byte) in little.iter_mut().zip(significant.iter().rev()) {
        *place = *byte;
    }
    let scalar = Option::from(Scalar::from_canonical_bytes(little))?;
    (significant.len() <= 32 && scalar != Scalar::ZERO).then_some(scalar)
}

/// Gives the leftmost 253 bits of a digest, as many as the order has, modulo the order.
fn truncated(hash: &[u8; 32]) -> Scalar {
    scalar(&shifted(hash))
}

/// Drops the lowest three of 256 bits.
fn shifted(bytes: &[u8; 32]) -> [u8; 32] {
    let mut shifted = [0; 32];
    let mut carry = 0;
    for (place, byte) in shifted.iter_mut().zip(bytes) {
        *place = carry << 5 | byte >> 3;
        carry = byte & 7;
    }
    shifted
}

fn reversed(mut bytes: [u8; 32]) -> [u8; 32] {
    bytes.reverse();
    bytes
}

/// Gives the affine x of a point modulo the group's order; nothing for bytes that are no point.
fn affine_x(point: &CompressedEdwardsY) -> Option<Scalar> {
    let mut bytes = reversed(point.to_bytes());
    let odd = bytes[0] >> 7;
    bytes[0] &= 0x7f;
    let y = Field::new(&U256::from_be_slice(&bytes));
    let y2 = y.square();
    // x² = u / v
    let (u, v) = (y2.sub(&Field::ONE), D.mul(&y2).add(&Field::ONE));
    let v3 = v.square().mul(&v);
    let v7 = v3.square().mul(&v);
    let mut x = u.mul(&v3).mul(&u.mul(&v7).pow_vartime(&ROOT_EXPONENT));
    let check = v.mul(&x.square());
    if check != u {
        x = x.mul(&ROOT_OF_MINUS_ONE);
        if v.mul(&x.square()) != u {
            return None;
        }
    }
    let bytes = |x: &Field| <[u8; 32]>::from(x.retrieve().to_be_bytes());
    let x = if bytes(&x)[31] & 1 == odd { bytes(&x) } else { bytes(&Field::ZERO.sub(&x)) };
    Some(scalar(&x))
}

/// The nonces of RFC 6979, section 3.2, for SHA-256 and an order of 253 bits.
struct Nonces {
    key: Zeroizing<[u8; 32]>,
    value: Zeroizing<[u8; 32]>,
    started: bool,
}

impl Nonces {
    /// Takes the secret as the 32 bytes of its file: libgcrypt does not reduce it first.
    fn new(secret: &[u8; 32], hash: &[u8; 32]) -> Self {
        let mut nonces =
            Self { key: Zeroizing::new([0; 32]), value: Zeroizing::new([1; 32]), started: false };
        let hash = reversed(truncated(hash).to_bytes());
        for round in 0..2 {
            nonces.rekey(&[&[round], secret, &hash]);
        }
        nonces
    }

    fn rekey(&mut self, parts: &[&[u8]]) {
        let mut mac = self.mac();
        parts.iter().for_each(|part| mac.update(part));
        self.key.copy_from_slice(&mac.finalize().into_bytes());
        let value = self.mac().finalize().into_bytes();
        self.value.copy_from_slice(&value);
    }

    /// Gives the authentication code's state after the present value.
    fn mac(&self) -> Hmac<sha2::Sha256> {
        let mut mac = Hmac::new_from_slice(&*self.key).expect("every length of key is allowed");
        mac.update(&*self.value);
        mac
    }

    fn next_nonce(&mut self) -> Scalar {
        loop {
            if self.started {
                self.rekey(&[&[0]]);
            }
            self.started = true;
            let value = self.mac().finalize().into_bytes();
            self.value.copy_from_slice(&value);
            let mut candidate = Zeroizing::new(shifted(&self.value));
            candidate.reverse();
            // About one in two is above the order; that it was passed over tells nothing of the one taken.
            if let Some(nonce) = Option::<Scalar>::from(Scalar::from_canonical_bytes(*candidate))
                && nonce != Scalar::ZERO
            {
                return nonce;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_signed_verifies(secret: [u8; 32], hash: [u8; 32], at in 0..32_usize, bit in 0..8_u8) {
            let public = public_key(&secret);
            let (r, s) = sign(&secret, &hash);
            prop_assert!(verify(&public, &hash, &r, &s));
            let flip = |bytes: &[u8; 32]| { let mut bytes = *bytes; bytes[at] ^= 1 << bit; bytes };
            prop_assert!(!verify(&public, &hash, &flip(&r), &s));
            prop_assert!(!verify(&public, &hash, &r, &flip(&s)));
            // The lowest three bits of a digest are not signed.
            let ignored = at == 31 && bit < 3;
            prop_assert_eq!(verify(&public, &flip(&hash), &r, &s), ignored);
        }

        #[test]
        fn x_is_that_of_the_point(secret: [u8; 32]) {
            let point = EdwardsPoint::mul_base(&scalar(&secret));
            // The other x has the other sign.
            let (x, other) = (affine_x(&point.compress()), affine_x(&(-point).compress()));
            prop_assert!(x.is_some() && x != other);
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let order = [
            0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x14, 0xde, 0xf9, 0xde, 0xa2, 0xf7, 0x9c,
            0xd6, 0x58, 0x12, 0x63, 0x1a, 0x5c, 0xf5, 0xd3, 0xed,
        ];
        assert_eq!(canonical(&order), None);
        assert_eq!(canonical(&[]), None);
        assert_eq!(canonical(&[0; 40]), None);
        assert_eq!(canonical(&[1; 33]), None);
        assert_eq!(canonical(&[0, 0, 7]), Some(Scalar::from(7_u8)));
    }
}
