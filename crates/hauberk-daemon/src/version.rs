//! Dialects and versions of the worker protocol.

use std::fmt;

/// Which of the two worlds a daemon belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The daemon of Nix.
    Nix,
    /// The daemon of GNU Guix.
    Guix,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nix => "nix",
            Self::Guix => "guix",
        })
    }
}

/// A version of the worker protocol, as the wire spells it: major in the upper, minor in the lower byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProtocolVersion(u16);

impl ProtocolVersion {
    /// What Nix 2.8 speaks, and the oldest of Nix understood here: results per path came with it.
    pub const NIX_OLDEST: Self = Self::new(1, 34);
    /// What Nix 2.24 and later speak, and the newest of Nix understood here.
    pub const NIX_NEWEST: Self = Self::new(1, 38);
    /// The oldest of Guix understood here: options went into pairs with it.
    pub const GUIX_OLDEST: Self = Self(0x161);
    /// What Guix up to 2025 speaks.
    pub const GUIX_163: Self = Self(0x163);
    /// The newest of Guix understood here: it added the list of substitute URLs.
    pub const GUIX_NEWEST: Self = Self(0x164);

    /// Joins a major and a minor number.
    pub const fn new(major: u8, minor: u8) -> Self {
        Self(((major as u16) << 8) | minor as u16)
    }

    /// Takes the number on the wire, or nothing if it has more than two bytes.
    pub fn from_wire(number: u64) -> Option<Self> {
        u16::try_from(number).ok().map(Self)
    }

    /// Gives the number on the wire.
    pub const fn wire(self) -> u64 {
        self.0 as u64
    }

    /// Gives the major number.
    pub const fn major(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Gives the minor number.
    pub const fn minor(self) -> u8 {
        self.0 as u8
    }

    /// Tells which world a daemon that offers this version is of: Guix left Nix's numbering at minor 0x61.
    pub const fn dialect(self) -> Dialect {
        if self.minor() >= 0x60 { Dialect::Guix } else { Dialect::Nix }
    }

    /// Gives the version to speak with a daemon that offers `self`, or nothing if it is too old or of another major.
    pub fn negotiate(self) -> Option<Self> {
        let (oldest, newest) = match self.dialect() {
            Dialect::Nix => (Self::NIX_OLDEST, Self::NIX_NEWEST),
            Dialect::Guix => (Self::GUIX_OLDEST, Self::GUIX_NEWEST),
        };
        (self.major() == 1 && self >= oldest).then(|| self.min(newest))
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_the_version_both_know() {
        let check = |offered: u64, spoken: Option<u64>| {
            let version = ProtocolVersion::from_wire(offered).unwrap();
            assert_eq!(version.negotiate().map(ProtocolVersion::wire), spoken, "{offered:#x}");
        };
        check(0x122, Some(0x122));
        check(0x126, Some(0x126));
        check(0x127, Some(0x126));
        check(0x121, None);
        check(0x163, Some(0x163));
        check(0x164, Some(0x164));
        check(0x165, Some(0x164));
        check(0x160, None);
        check(0x222, None);
        check(0x263, None);
        assert_eq!(ProtocolVersion::from_wire(0x1_0122), None);
        assert_eq!(ProtocolVersion::from_wire(0x163).unwrap().dialect(), Dialect::Guix);
        assert_eq!(ProtocolVersion::NIX_OLDEST.to_string(), "1.34");
    }
}
