//! How urgent a build is.

use std::fmt;

/// How urgent a build is: 0 is the most urgent, 99 the least, and the emergency lane goes before all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Urgency(i16);

impl Urgency {
    /// Before everything, whatever the shares.
    pub const EMERGENCY: Self = Self(-1);
    /// The most urgent of the ordinary ones.
    pub const FIRST: Self = Self(0);
    /// The least urgent.
    pub const LAST: Self = Self(99);

    /// Takes a priority; what lies outside of 0 to 99 becomes the nearest of them.
    pub fn of_priority(priority: i16) -> Self {
        Self(priority.clamp(Self::FIRST.0, Self::LAST.0))
    }

    /// Tells whether an operator put it before everything.
    pub fn is_emergency(self) -> bool {
        self == Self::EMERGENCY
    }
}

impl fmt::Display for Urgency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_emergency() { formatter.write_str("emergency") } else { self.0.fmt(formatter) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_stay_in_their_range_and_emergencies_come_first() {
        assert_eq!(Urgency::of_priority(-7), Urgency::FIRST);
        assert_eq!(Urgency::of_priority(700), Urgency::LAST);
        assert!(Urgency::EMERGENCY < Urgency::FIRST && Urgency::FIRST < Urgency::LAST);
        assert_eq!(Urgency::of_priority(42).to_string(), "42");
        assert_eq!(Urgency::EMERGENCY.to_string(), "emergency");
    }
}
