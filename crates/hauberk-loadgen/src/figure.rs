//! Figures: what a scenario measured, and under which circumstances.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

/// One measured number.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The scenario it comes from.
    pub(crate) scenario: &'static str,
    /// Its name, unique in the scenario.
    pub(crate) figure: &'static str,
    /// The number.
    pub(crate) value: f64,
    /// What it counts.
    pub(crate) unit: &'static str,
    /// Sizes, row counts, and the state of the machine.
    pub(crate) parameters: Map<String, Value>,
}

/// Makes one figure of each name: its median over several runs, with the parameters of the run that gave it.
pub(crate) fn medians(runs: Vec<Vec<Figure>>) -> Vec<Figure> {
    let several = runs.len() > 1;
    let mut order = Vec::new();
    let mut by_name: BTreeMap<&str, Vec<Figure>> = BTreeMap::new();
    for figure in runs.into_iter().flatten() {
        if !order.contains(&figure.figure) {
            order.push(figure.figure);
        }
        by_name.entry(figure.figure).or_default().push(figure);
    }
    let mut medians = Vec::new();
    for name in order {
        let Some(mut figures) = by_name.remove(name) else { continue };
        let values: Vec<f64> = figures.iter().map(|figure| figure.value).collect();
        figures.sort_by(|a, b| a.value.total_cmp(&b.value));
        let mut median = figures.swap_remove((figures.len() - 1) / 2);
        if several {
            median.parameters.insert("runs".to_owned(), values.into());
        }
        medians.push(median);
    }
    medians
}

/// Gives the value below which `share` of `values` lie; they are sorted in passing. Nothing without values.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    // A place in a list is far below what a float holds exactly.
    let place = (last as f64 * share.clamp(0.0, 1.0)).round() as usize;
    values.get(place).copied()
}

/// Rounds to `digits` after the point, for parameters that people read.
pub(crate) fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}

/// Prints figures for people: a line for each, then its parameters.
pub(crate) fn table(figures: &[Figure]) -> String {
    let mut text = String::new();
    for figure in figures {
        text.push_str(&format!(
            "{:<12} {:<28} {:>12.1} {}\n",
            figure.scenario, figure.figure, figure.value, figure.unit
        ));
        for (name, value) in &figure.parameters {
            text.push_str(&format!("{:<14}{name}: {value}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &'static str, value: f64) -> Figure {
        let parameters = Map::from_iter([("seen".to_owned(), value.into())]);
        Figure { scenario: "s", figure: name, value, unit: "u", parameters }
    }

    #[test]
    fn the_median_keeps_its_own_parameters() {
        let runs = [3.0, 1.0, 2.0].map(|value| vec![figure("b", value), figure("a", 10.0 * value)]);
        let made = medians(runs.into());
        assert_eq!(made.iter().map(|f| (f.figure, f.value)).collect::<Vec<_>>(), [("b", 2.0), ("a", 20.0)]);
        assert_eq!(made[0].parameters["seen"], 2.0);
        assert_eq!(made[0].parameters["runs"], serde_json::json!([3.0, 1.0, 2.0]));
        assert!(!medians(vec![vec![figure("a", 1.0)]])[0].parameters.contains_key("runs"));
    }

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let mut values = [5.0, 1.0, 4.0, 2.0, 3.0];
        assert_eq!(quantile(&mut values, 0.5), Some(3.0));
        assert_eq!(quantile(&mut values, 0.99), Some(5.0));
        assert_eq!(quantile(&mut values, 0.0), Some(1.0));
        assert_eq!(quantile(&mut [], 0.5), None);
    }
}
