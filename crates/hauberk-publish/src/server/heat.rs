//! Clients that ask again so quickly that to sleep in between costs more than to look.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The longest time between an answer and the next request of a client that is quick, and the longest that it is looked for.
const QUICK: Duration = Duration::from_micros(100);

/// Times in a row that a client must have been quick before it is looked for.
const TIMES: u8 = 8;

/// Knows how quick a client was lately.
///
/// To fall asleep in the kernel and to be woken takes longer, for a client on the same machine or a line as fast, than to answer a narinfo. So the thread looks
/// for the next request of such a client for a moment before it sleeps, as often as it gives way to other connections and programs. It costs at most [`QUICK`] once,
/// when a client that was quick stops; nothing where none is.
#[derive(Debug, Default)]
pub(super) struct Heat {
    /// When the answer that nothing followed yet was sent.
    answered: Option<Instant>,
    quick: u8,
}

impl Heat {
    /// Notes that an answer was sent.
    pub(super) fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// Notes that something came.
    pub(super) fn came(&mut self) {
        let Some(answered) = self.answered.take() else { return };
        self.quick = match answered.elapsed() <= QUICK {
            true => self.quick.saturating_add(1),
            false => 0,
        };
    }

    /// Tells whether it is worth to look once more, now that nothing is there; gives way to others on this processor first.
    pub(super) fn looks_again(&mut self) -> bool {
        if self.quick < TIMES {
            return false;
        }
        if self.answered.is_none_or(|answered| answered.elapsed() > QUICK) {
            self.quick = 0;
            return false;
        }
        thread::yield_now();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_was_quick_is_looked_for_and_not_for_long() {
        let mut heat = Heat::default();
        assert!(!heat.looks_again());
        let was_quick = |heat: &mut Heat| {
            heat.quick = TIMES - 1;
            heat.answered();
            heat.came();
        };
        // A loaded machine may take long between two instants.
        while heat.quick < TIMES {
            was_quick(&mut heat);
        }
        // Nothing was answered since.
        assert!(!heat.looks_again());
        let (mut looks, began) = (0, Instant::now());
        while looks == 0 && began.elapsed() < Duration::from_secs(30) {
            while heat.quick < TIMES {
                was_quick(&mut heat);
            }
            heat.answered();
            while heat.looks_again() {
                looks += 1;
            }
        }
        assert!(looks > 0);
        assert_eq!(heat.quick, 0);
        heat.quick = TIMES;
        heat.answered = Instant::now().checked_sub(Duration::from_secs(1));
        heat.came();
        assert_eq!(heat.quick, 0);
    }
}
