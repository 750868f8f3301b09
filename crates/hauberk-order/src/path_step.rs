//! How long a remaining path is, as far as the order goes by it.

use std::time::Duration;

/// The length of a remaining path in steps, of which two make it twice as long.
///
/// Builds whose paths are of one step are equals, and the one that was recorded first goes before the others. Estimates are wrong by more than a
/// step is long, so finer differences say little; but to go by them would have the builds of a lane given out in an order that
/// jumps about in every table and index that a build's life touches.
///
/// Paths themselves stay exact: what is rounded adds up along chains. Of milliseconds, 0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32 … begin a step. The
/// database has the same in `builds.path_step`, by its function `path_step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PathStep(i16);

impl PathStep {
    /// Gives the step of a path that takes so many milliseconds. What takes more than `i64::MAX` counts as so long: step 125.
    pub fn of_millis(millis: u64) -> Self {
        let millis = millis.min(i64::MAX.unsigned_abs());
        // Until two binary digits are left, which tell the halves of an octave.
        let halvings = (u64::BITS - millis.leading_zeros()).saturating_sub(2);
        let step = (millis >> halvings) + u64::from(2 * halvings);
        Self(i16::try_from(step).unwrap_or(i16::MAX))
    }

    /// Takes the number of a step as the database gives it.
    pub const fn new(number: i16) -> Self {
        Self(number)
    }

    /// Gives the number of the step, from 0 to 125.
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl From<Duration> for PathStep {
    /// Gives the step of a path that takes so long, by its whole milliseconds.
    fn from(path: Duration) -> Self {
        Self::of_millis(u64::try_from(path.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(millis: u64) -> i16 {
        PathStep::of_millis(millis).get()
    }

    #[test]
    fn two_steps_make_a_path_twice_as_long() {
        let first: Vec<_> = (0..=16).map(step).collect();
        assert_eq!(first, [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7, 8]);
        for power in 1..62 {
            let millis = 1_u64 << power;
            assert_eq!(step(2 * millis), step(millis) + 2);
            assert_eq!((step(millis - 1), step(millis + millis / 2)), (step(millis) - 1, step(millis) + 1));
        }
        assert_eq!((step(i64::MAX as u64), step(u64::MAX)), (125, 125));
    }

    #[test]
    fn a_longer_path_is_of_no_lower_step() {
        let mut paths: Vec<u64> = (0..63)
            .map(|power| 1_u64 << power)
            .flat_map(|at| [at - 1, at, at + 1, at + at / 3, at + at / 2])
            .collect();
        paths.sort_unstable();
        assert!(paths.is_sorted_by_key(|millis| step(*millis)));
        assert_eq!(PathStep::from(Duration::MAX), PathStep::of_millis(u64::MAX));
        assert_eq!(PathStep::from(Duration::from_micros(5_999)).get(), 4);
    }
}
