//! What a simulated builder does, told by the name of the build.

use std::time::Duration;

use super::Random;

/// The conduct of a builder: the beginning of its build's name, up to the first `-`.
///
/// | name | conduct |
/// |---|---|
/// | `quick-…` | succeeds at once |
/// | `slow-…` | succeeds after up to 300 ms that follow from the name |
/// | `gate.NAME-…` | waits until the gate NAME is open, then as `slow` |
/// | `fail-…` | fails at once by the package's fault |
/// | `failgate.NAME-…` | waits until the gate NAME is open, then as `fail` |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conduct {
    /// The gate it waits at.
    pub gate: Option<String>,
    /// How long it takes after that.
    pub pause: Duration,
    /// Whether it succeeds.
    pub succeeds: bool,
}

impl Conduct {
    /// Reads it from a name. An unknown kind is as `quick`.
    pub fn of(name: &str) -> Self {
        let kind = name.split('-').next().unwrap_or(name);
        let (kind, gate) = match kind.split_once('.') {
            Some((kind, gate)) => (kind, Some(gate.to_owned())),
            None => (kind, None),
        };
        let pause = match kind {
            "slow" | "gate" => Duration::from_millis(Random::of_text(name).below(300)),
            _ => Duration::ZERO,
        };
        Self { gate, pause, succeeds: !kind.starts_with("fail") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_what_is_done() {
        let quick = Conduct { gate: None, pause: Duration::ZERO, succeeds: true };
        assert_eq!(Conduct::of("quick-1"), quick);
        assert_eq!(Conduct::of("fail-1"), Conduct { succeeds: false, ..quick.clone() });
        let failgate = Conduct { succeeds: false, gate: Some("north".to_owned()), ..quick };
        assert_eq!(Conduct::of("failgate.north-x-1"), failgate);
        assert_eq!(Conduct::of("gate.south-7").gate.as_deref(), Some("south"));
        assert_eq!(Conduct::of("slow-5"), Conduct::of("slow-5"));
    }
}
