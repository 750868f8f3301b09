//! What publishing an evaluation does to each build: a pure function of the graph.

use std::collections::HashSet;
use std::time::Duration;

use hauberk_order::remaining_paths;

use crate::{BuildId, BuildState, DerivationId, Priority};

/// A build that the evaluation wants, or that such a one needs.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Its id.
    pub(super) id: BuildId,
    /// The best priority that the evaluation itself asks for it.
    pub(super) wanted: Priority,
    /// Whether an operator has put the evaluation, and so this job of it, before everything.
    pub(super) emergency: bool,
    /// Milliseconds it should take, by what is known now.
    pub(super) expected_ms: i64,
    /// How it stands in the database; `None` for a new one.
    pub(super) known: Option<Known>,
    /// The derivation that it takes, if it is known and nobody works at it.
    pub(super) renewal: Option<Renewal>,
    /// What it needs, as places in the graph, each once. Left empty where that does not matter any more.
    pub(super) dependencies: Vec<usize>,
    /// Whether some of those dependencies are not recorded yet.
    pub(super) has_new_edges: bool,
}

impl Node {
    /// Tells whether there is a derivation for it that is not known to fail, if it has failed.
    fn is_mended(&self) -> bool {
        self.renewal.is_some_and(|renewal| renewal.is_untried)
    }
}

/// Another derivation that gives what a known build gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Renewal {
    pub(super) derivation: DerivationId,
    /// Whether no attempt has failed by it.
    pub(super) is_untried: bool,
}

/// How a build stands in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) state: BuildState,
    pub(super) priority: Priority,
    pub(super) unmet: i32,
    pub(super) failed_build: Option<BuildId>,
    /// Whether it had succeeded and its outputs were removed since.
    pub(super) collected: bool,
    pub(super) emergency: bool,
    /// The priority an operator gave it.
    pub(super) priority_asked: Option<Priority>,
    pub(super) expected_ms: i64,
    pub(super) remaining_path: i64,
}

impl Known {
    /// Tells whether its outputs are there.
    pub(super) fn is_met(self) -> bool {
        self.state == BuildState::Succeeded && !self.collected
    }
}

/// How a build is to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) state: BuildState,
    pub(super) priority: Priority,
    pub(super) unmet: i32,
    pub(super) failed_build: Option<BuildId>,
    pub(super) emergency: bool,
    pub(super) expected_ms: i64,
    pub(super) remaining_path: i64,
    /// Whether a build that was final begins anew.
    pub(super) revived: bool,
    /// Whether it takes the derivation that the evaluation has for it.
    pub(super) takes_derivation: bool,
}

impl Outcome {
    fn unchanged(known: Known) -> Self {
        let Known { state, priority, unmet, failed_build, emergency, expected_ms, remaining_path, .. } =
            known;
        Self {
            state,
            priority,
            unmet,
            failed_build,
            emergency,
            expected_ms,
            remaining_path,
            revived: false,
            takes_derivation: false,
        }
    }

    /// Tells whether the row of a build that stands as `known` has to be written.
    pub(super) fn changes(&self, known: Known) -> bool {
        *self != Self::unchanged(known)
    }
}

/// The graph has a cycle; this build is on it or above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cycle(pub(super) BuildId);

/// The graph in an order in which every build comes after what it needs.
#[derive(Debug)]
pub(super) struct Order {
    /// Places in the graph, by depth, then id.
    places: Vec<usize>,
}

impl Order {
    /// Orders a graph.
    pub(super) fn of(nodes: &[Node]) -> Result<Self, Cycle> {
        let mut open: Vec<usize> = nodes.iter().map(|node| node.dependencies.len()).collect();
        let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
        for (place, node) in nodes.iter().enumerate() {
            for &dependency in &node.dependencies {
                dependents[dependency].push(place);
            }
        }
        let mut places = Vec::with_capacity(nodes.len());
        let mut level: Vec<usize> = (0..nodes.len()).filter(|&place| open[place] == 0).collect();
        while !level.is_empty() {
            level.sort_unstable_by_key(|&place| nodes[place].id);
            let mut next = Vec::new();
            for &place in &level {
                for &dependent in &dependents[place] {
                    open[dependent] -= 1;
                    if open[dependent] == 0 {
                        next.push(dependent);
                    }
                }
            }
            places.append(&mut level);
            level = next;
        }
        match open.iter().position(|&open| open > 0) {
            Some(place) => Err(Cycle(nodes[place].id)),
            None => Ok(Self { places }),
        }
    }

    /// Gives those of the places for which `wanted` holds, in order.
    pub(super) fn filter(&self, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        self.places.iter().copied().filter(|&place| wanted(place)).collect()
    }
}

/// Decides how each build is to stand.
pub(super) fn plan(nodes: &[Node], order: &Order) -> Vec<Outcome> {
    let roots = roots(nodes, order);
    let urgencies = urgencies(nodes, order, &roots);
    let paths = paths(nodes, &roots);
    let mut outcomes: Vec<Outcome> = nodes
        .iter()
        .map(|node| Outcome {
            state: BuildState::Staged,
            priority: node.wanted,
            unmet: 0,
            failed_build: None,
            emergency: false,
            expected_ms: node.expected_ms,
            remaining_path: 0,
            revived: false,
            takes_derivation: false,
        })
        .collect();
    let mended = nodes.iter().filter(|node| node.is_mended()).map(|node| node.id);
    let mended: HashSet<BuildId> = mended.collect();
    for &place in &order.places {
        let node = &nodes[place];
        let root = root_below(node, &roots);
        let unmet = node
            .dependencies
            .iter()
            .filter(|&&dependency| nodes[dependency].known.is_none_or(|known| !known.is_met()))
            .count();
        let unmet = i32::try_from(unmet).unwrap_or(i32::MAX);
        let blamed = node.known.and_then(|known| known.failed_build).filter(|id| !mended.contains(id));
        let wish = Wish { urgency: urgencies[place], remaining_path: paths[place] };
        outcomes[place] = outcome(node, wish, &Below { unmet, root, blamed });
    }
    outcomes
}

/// Tells for each build which one is to blame if it is over without success, or is going to be.
fn roots(nodes: &[Node], order: &Order) -> Vec<Option<BuildId>> {
    use BuildState as S;
    let mut roots: Vec<Option<BuildId>> = vec![None; nodes.len()];
    for &place in &order.places {
        let node = &nodes[place];
        roots[place] = match node.known {
            Some(known) if known.is_met() => None,
            Some(Known { state: S::Assigned | S::Running | S::Built | S::Fetching, .. }) => None,
            Some(Known { state: S::Failed | S::FailedOther, .. }) if !node.is_mended() => Some(node.id),
            _ => root_below(node, &roots),
        };
    }
    roots
}

/// Which build that this one needs, directly or not, is to blame if one has failed.
fn root_below(node: &Node, roots: &[Option<BuildId>]) -> Option<BuildId> {
    node.dependencies.iter().filter_map(|&dependency| roots[dependency]).min()
}

/// What the order of dispatch is to know of a build.
#[derive(Debug, Clone, Copy)]
struct Wish {
    urgency: (Priority, bool),
    remaining_path: i64,
}

/// How that stands which a build needs.
#[derive(Debug, Clone, Copy)]
struct Below {
    /// How many of its dependencies are unmet.
    unmet: i32,
    /// Which build below failed in the first place.
    root: Option<BuildId>,
    /// The one that is recorded to have.
    blamed: Option<BuildId>,
}

/// Decides about one build.
fn outcome(node: &Node, wish: Wish, below: &Below) -> Outcome {
    use BuildState as S;
    let Below { unmet, root, blamed } = *below;
    let takes_derivation = node.renewal.is_some();
    let Wish { urgency: (priority, emergency), remaining_path } = wish;
    let expected_ms =
        node.known.map_or(node.expected_ms, |known| renewed(known.expected_ms, node.expected_ms));
    let fresh = |state: S, revived: bool| {
        let state = match (root, unmet) {
            (Some(_), _) => S::FailedDependency,
            (None, 0) => state,
            (None, _) => S::Waiting,
        };
        Outcome {
            state,
            priority,
            unmet,
            failed_build: root,
            emergency,
            expected_ms,
            remaining_path,
            revived,
            takes_derivation,
        }
    };
    let Some(known) = node.known else { return fresh(S::Ready, false) };
    match known.state {
        S::Succeeded if known.collected => fresh(S::Ready, true),
        S::Succeeded => Outcome::unchanged(known),
        S::Failed | S::FailedOther if node.is_mended() => fresh(S::Ready, true),
        S::Failed | S::FailedOther => Outcome { takes_derivation, ..Outcome::unchanged(known) },
        S::Assigned | S::Running | S::Built | S::Fetching => {
            Outcome { priority, emergency, ..Outcome::unchanged(known) }
        }
        S::Canceled => fresh(S::Ready, true),
        S::FailedDependency if root.is_some() => {
            let failed_build = blamed.filter(|_| !takes_derivation).or(root);
            Outcome { unmet, failed_build, takes_derivation, ..Outcome::unchanged(known) }
        }
        S::FailedDependency => fresh(S::Ready, true),
        S::Held if root.is_none() => Outcome {
            priority,
            emergency,
            unmet,
            expected_ms,
            remaining_path,
            takes_derivation,
            ..Outcome::unchanged(known)
        },
        S::Deferred => fresh(S::Deferred, false),
        S::Staged | S::Held | S::Waiting | S::Ready => fresh(S::Ready, false),
    }
}

/// Hands down to what each build needs how urgent it is, and whether it goes before everything. What has a root to blame is over, and needs
/// nothing any more.
fn urgencies(nodes: &[Node], order: &Order, roots: &[Option<BuildId>]) -> Vec<(Priority, bool)> {
    let mut urgencies: Vec<(Priority, bool)> = nodes
        .iter()
        .map(|node| match node.known {
            None => (node.wanted, node.emergency),
            Some(known) if known.priority_asked.is_some() => {
                (known.priority, known.emergency || node.emergency)
            }
            Some(known) => (known.priority.min(node.wanted), known.emergency || node.emergency),
        })
        .collect();
    for &place in order.places.iter().rev().filter(|&&place| roots[place].is_none()) {
        let (priority, emergency) = urgencies[place];
        for &dependency in &nodes[place].dependencies {
            let below = &mut urgencies[dependency];
            *below = (below.0.min(priority), below.1 || emergency);
        }
    }
    urgencies
}

/// Milliseconds of the longest chain that begins with each build. What other evaluations have behind it is what was known of it before.
fn paths(nodes: &[Node], roots: &[Option<BuildId>]) -> Vec<i64> {
    let durations: Vec<Duration> = nodes
        .iter()
        .zip(roots)
        .map(|(node, root)| match node.known {
            _ if root.is_some() => Duration::ZERO,
            Some(known) if known.is_met() => Duration::ZERO,
            _ => Duration::from_millis(u64::try_from(node.expected_ms).unwrap_or(0)),
        })
        .collect();
    // A cycle was found before this is asked.
    let paths = remaining_paths(&durations, |place| &nodes[place].dependencies).unwrap_or_default();
    nodes
        .iter()
        .zip(paths)
        .map(|(node, path)| {
            let path = i64::try_from(path.as_millis()).unwrap_or(i64::MAX);
            node.known.map_or(path, |known| renewed(known.remaining_path, known.remaining_path.max(path)))
        })
        .collect()
}

/// What is known anew, unless it says much the same: rows are not written for less than a tenth.
fn renewed(known: i64, new: i64) -> i64 {
    if (new - known).abs() <= known / 10 { known } else { new }
}

/// Tells which known builds have to be locked before a plan holds: those it changes, and those that the unmet
/// dependencies of a new or changed one are counted by.
pub(super) fn must_hold_still(nodes: &[Node], outcomes: &[Outcome]) -> Vec<bool> {
    let mut still = vec![false; nodes.len()];
    for (place, node) in nodes.iter().enumerate() {
        let touched = node.known.is_none_or(|known| node.has_new_edges || outcomes[place].changes(known));
        still[place] |= touched && node.known.is_some();
        if touched {
            for &dependency in &node.dependencies {
                still[dependency] |= nodes[dependency].known.is_some_and(|known| !known.is_met());
            }
        }
    }
    still
}

#[cfg(test)]
mod tests {
    use super::*;
    use BuildState as S;

    fn priority(number: i64) -> Priority {
        Priority::try_from(number).unwrap()
    }

    fn new(id: i64, wanted: i64, dependencies: &[usize]) -> Node {
        Node {
            id: BuildId::new(id),
            wanted: priority(wanted),
            emergency: false,
            expected_ms: 1000,
            known: None,
            renewal: None,
            dependencies: dependencies.to_vec(),
            has_new_edges: false,
        }
    }

    fn known(id: i64, state: S, unmet: i32, dependencies: &[usize]) -> Node {
        let known = Known {
            state,
            priority: priority(50),
            unmet,
            failed_build: None,
            collected: false,
            emergency: false,
            priority_asked: None,
            expected_ms: 1000,
            remaining_path: 0,
        };
        Node { known: Some(known), ..new(id, 99, dependencies) }
    }

    fn states(nodes: &[Node]) -> Vec<(S, i32, Option<i64>, bool)> {
        let outcomes = plan(nodes, &Order::of(nodes).unwrap());
        outcomes
            .iter()
            .map(|to| (to.state, to.unmet, to.failed_build.map(BuildId::get), to.revived))
            .collect()
    }

    #[test]
    fn new_builds_wait_for_what_has_not_succeeded() {
        let nodes = [
            new(10, 20, &[1, 2]),
            new(11, 99, &[]),
            known(1, S::Running, 0, &[]),
            known(2, S::Succeeded, 0, &[]),
            new(12, 99, &[3]),
        ];
        let states = states(&nodes);
        assert_eq!(states[0], (S::Waiting, 2, None, false));
        assert_eq!(states[1], (S::Ready, 0, None, false));
        assert_eq!(states[2], (S::Running, 0, None, false));
        assert_eq!(states[4], (S::Ready, 0, None, false));
    }

    #[test]
    fn the_best_priority_goes_down_to_all_that_is_needed() {
        let nodes = [new(10, 20, &[2]), new(11, 10, &[2]), known(1, S::Waiting, 1, &[3]), new(12, 99, &[])];
        let priorities: Vec<u8> =
            plan(&nodes, &Order::of(&nodes).unwrap()).iter().map(|to| to.priority.get()).collect();
        assert_eq!(priorities, [20, 10, 10, 10]);
    }

    #[test]
    fn an_emergency_goes_down_and_an_operators_priority_stays() {
        let mut nodes = [new(10, 20, &[1]), known(1, S::Waiting, 1, &[2]), known(2, S::Ready, 0, &[])];
        nodes[0].emergency = true;
        for (node, asked) in nodes[1..].iter_mut().zip([60, 70]) {
            let known = node.known.as_mut().unwrap();
            known.priority = priority(asked);
            known.priority_asked = Some(priority(asked));
        }
        nodes[2].wanted = priority(3);
        let plan = plan(&nodes, &Order::of(&nodes).unwrap());
        assert!(plan.iter().all(|to| to.emergency));
        // The operator's word is against the jobs, not against what waits for it.
        assert_eq!(plan.iter().map(|to| to.priority.get()).collect::<Vec<_>>(), [20, 20, 20]);
        nodes[0].dependencies.clear();
        let plan = super::plan(&nodes, &Order::of(&nodes).unwrap());
        assert_eq!(plan.iter().map(|to| to.priority.get()).collect::<Vec<_>>(), [20, 60, 60]);
    }

    #[test]
    fn the_longest_chain_is_known_and_what_is_over_does_not_count() {
        let mut nodes = [
            new(10, 20, &[1]),
            new(11, 20, &[2, 3]),
            known(1, S::Ready, 0, &[]),
            known(2, S::Running, 0, &[]),
            known(3, S::Ready, 0, &[]),
        ];
        nodes[2].known.as_mut().unwrap().remaining_path = 2950;
        nodes[4].known.as_mut().unwrap().remaining_path = 9000;
        let plan = plan(&nodes, &Order::of(&nodes).unwrap());
        let paths: Vec<i64> = plan.iter().map(|to| to.remaining_path).collect();
        // Much the same is left as it is, what runs is not written, and what others have behind a build stays.
        assert_eq!(paths, [1000, 2000, 2950, 0, 9000]);
    }

    #[test]
    fn a_failure_reaches_everything_above_it_and_names_itself() {
        let nodes = [
            new(10, 20, &[1]),
            known(5, S::Ready, 0, &[2, 3]),
            known(1, S::Failed, 0, &[]),
            new(11, 99, &[]),
            new(12, 9, &[0, 3]),
        ];
        let states = states(&nodes);
        assert_eq!(states[0], (S::FailedDependency, 1, Some(1), false));
        assert_eq!(states[1], (S::FailedDependency, 2, Some(1), false));
        assert_eq!(states[3], (S::Ready, 0, None, false));
        assert_eq!(states[4], (S::FailedDependency, 2, Some(1), false));
    }

    #[test]
    fn what_fails_at_once_hurries_nothing_else_that_it_needs() {
        // 10 needs what has failed, and 11, which 12 needs too; 13 is wanted by 10 alone.
        let mut nodes = [
            new(10, 5, &[1, 2, 4]),
            known(1, S::Failed, 0, &[]),
            new(11, 99, &[]),
            new(12, 30, &[2]),
            new(13, 99, &[]),
        ];
        nodes[0].emergency = true;
        let stands = |nodes: &[Node]| -> Vec<(S, u8, bool, i64)> {
            let outcomes = plan(nodes, &Order::of(nodes).unwrap());
            outcomes.iter().map(|to| (to.state, to.priority.get(), to.emergency, to.remaining_path)).collect()
        };
        let stood = stands(&nodes);
        assert_eq!(stood[0].0, S::FailedDependency);
        assert_eq!(
            stood[2..],
            [(S::Ready, 30, false, 2000), (S::Waiting, 30, false, 1000), (S::Ready, 99, false, 1000)]
        );
        nodes[1].known.as_mut().unwrap().state = S::Running;
        let stood = stands(&nodes);
        assert_eq!(stood[0], (S::Waiting, 5, true, 1000));
        assert_eq!(
            stood[2..],
            [(S::Ready, 5, true, 2000), (S::Waiting, 30, false, 1000), (S::Ready, 5, true, 2000)]
        );
    }

    #[test]
    fn canceled_builds_and_their_failed_dependents_begin_anew() {
        let nodes = [
            known(3, S::FailedDependency, 1, &[1]),
            known(2, S::Canceled, 1, &[2]),
            known(1, S::Canceled, 0, &[]),
            known(4, S::FailedDependency, 1, &[4]),
            known(5, S::FailedOther, 0, &[]),
        ];
        let states = states(&nodes);
        assert_eq!(states[0], (S::Waiting, 1, None, true));
        assert_eq!(states[1], (S::Waiting, 1, None, true));
        assert_eq!(states[2], (S::Ready, 0, None, true));
        assert_eq!(states[3], (S::FailedDependency, 1, Some(5), false));
    }

    #[test]
    fn a_failed_build_begins_anew_by_a_derivation_that_is_not_known_to_fail() {
        let mut nodes = [
            known(3, S::FailedDependency, 1, &[1]),
            known(1, S::Failed, 0, &[4]),
            known(4, S::FailedDependency, 2, &[1, 3]),
            known(2, S::FailedOther, 0, &[]),
            new(5, 99, &[]),
        ];
        for (node, failed) in [(0, 1), (2, 1)] {
            nodes[node].known.as_mut().unwrap().failed_build = Some(BuildId::new(failed));
        }
        let derivation = DerivationId::new(7);
        nodes[1].renewal = Some(Renewal { derivation, is_untried: true });
        nodes[3].renewal = Some(Renewal { derivation, is_untried: false });
        assert_eq!(
            states(&nodes),
            [
                (S::Waiting, 1, None, true),
                (S::Waiting, 1, None, true),
                // What is mended is not to blame any more.
                (S::FailedDependency, 2, Some(2), false),
                (S::FailedOther, 0, None, false),
                (S::Ready, 0, None, false),
            ]
        );
        let plan = plan(&nodes, &Order::of(&nodes).unwrap());
        let takes: Vec<bool> = plan.iter().map(|to| to.takes_derivation).collect();
        assert_eq!(takes, [false, true, false, true, false], "a later restart takes the newest derivation");
        assert!(plan[3].changes(nodes[3].known.unwrap()));

        // Somebody has begun to work at it meanwhile.
        nodes[1].known.as_mut().unwrap().state = S::Running;
        let plan = super::plan(&nodes, &Order::of(&nodes).unwrap());
        assert_eq!((plan[1].state, plan[1].takes_derivation), (S::Running, false));
    }

    #[test]
    fn what_is_held_deferred_or_miscounted_is_kept_or_mended() {
        let nodes = [
            known(1, S::Held, 0, &[]),
            known(2, S::Deferred, 0, &[]),
            known(3, S::Waiting, 2, &[]),
            known(4, S::Deferred, 0, &[0]),
        ];
        let states = states(&nodes);
        assert_eq!(states[0].0, S::Held);
        assert_eq!(states[1].0, S::Deferred);
        assert_eq!(states[2], (S::Ready, 0, None, false));
        assert_eq!(states[3], (S::Waiting, 1, None, false));
    }

    #[test]
    fn only_what_matters_is_locked() {
        let mut nodes = [
            new(10, 60, &[1]),
            known(1, S::Waiting, 1, &[2]),
            known(2, S::Running, 0, &[]),
            known(3, S::Succeeded, 0, &[]),
        ];
        nodes[1].known.as_mut().unwrap().remaining_path = 2000;
        let outcomes = plan(&nodes, &Order::of(&nodes).unwrap());
        assert_eq!(must_hold_still(&nodes, &outcomes), [false, true, false, false]);
    }

    #[test]
    fn a_cycle_is_found() {
        let nodes = [new(1, 9, &[1]), new(2, 9, &[0]), new(3, 9, &[])];
        assert!(Order::of(&nodes).is_err());
    }
}
