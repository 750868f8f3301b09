//! How much work waits behind a build in a row.

use std::time::Duration;

/// The graph has a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the graph has a cycle through node {0} or below it")]
pub struct Cycle(pub usize);

/// Gives, for each node of a graph, the time of the longest chain that begins with it, itself included.
///
/// `durations` has one entry for each node, and `dependencies` gives what each node needs, as places in the same order. A chain leads from a
/// node to one that needs it. Nodes of unknown duration are given the same small one by the caller, so that depth decides.
///
/// # Errors
/// [`Cycle`] when the nodes cannot be put in an order.
///
/// # Panics
/// When a dependency is not a place in the list.
pub fn remaining_paths<'a>(
    durations: &[Duration],
    dependencies: impl Fn(usize) -> &'a [usize],
) -> Result<Vec<Duration>, Cycle> {
    // How many of those that need a node are not decided yet.
    let mut open = vec![0_usize; durations.len()];
    for needed in (0..durations.len()).flat_map(&dependencies) {
        open[*needed] += 1;
    }
    let mut paths = vec![Duration::ZERO; durations.len()];
    let mut decided: Vec<usize> = (0..durations.len()).filter(|node| open[*node] == 0).collect();
    let mut next = 0;
    while let Some(&node) = decided.get(next) {
        next += 1;
        paths[node] = paths[node].saturating_add(durations[node]);
        for &needed in dependencies(node) {
            paths[needed] = paths[needed].max(paths[node]);
            open[needed] -= 1;
            if open[needed] == 0 {
                decided.push(needed);
            }
        }
    }
    match open.iter().position(|open| *open > 0) {
        Some(node) => Err(Cycle(node)),
        None => Ok(paths),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(durations: &[u64], dependencies: &[&[usize]]) -> Result<Vec<u64>, Cycle> {
        let durations: Vec<_> = durations.iter().map(|seconds| Duration::from_secs(*seconds)).collect();
        Ok(remaining_paths(&durations, |node| dependencies[node])?.iter().map(Duration::as_secs).collect())
    }

    #[test]
    fn the_longest_chain_above_counts() {
        // 0 is needed by 1 and 2, both by 3; 4 stands alone.
        assert_eq!(paths(&[1, 10, 2, 5, 7], &[&[], &[0], &[0], &[1, 2], &[]]), Ok(vec![16, 15, 7, 5, 7]));
        assert_eq!(paths(&[], &[]), Ok(vec![]));
    }

    #[test]
    fn a_cycle_is_an_error() {
        assert_eq!(paths(&[1, 1, 1], &[&[1], &[0], &[]]), Err(Cycle(0)));
    }
}
