//! The reasons as sentences, the same on pages and on the command line.

use std::fmt;

use super::Reason;

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Staged => out.write_str("Its evaluation is not published yet."),
            Self::Held => out.write_str("An operator keeps it back."),
            Self::Inputs { count, first } => {
                let plural = if *count == 1 { "build that has" } else { "builds that have" };
                write!(out, "It waits for {count} {plural} not succeeded yet")?;
                for (number, input) in first.iter().enumerate() {
                    let before = if number == 0 { ": " } else { ", " };
                    write!(out, "{before}{} (build {}, {})", input.name, input.build, input.state.as_str())?;
                }
                let named = i32::try_from(first.len()).unwrap_or(i32::MAX);
                out.write_str(if named < *count { " and others." } else { "." })
            }
            Self::Deferred { until, tries, class, message } => {
                match until {
                    Some(until) => write!(out, "It will be tried again after {until:.0}")?,
                    None => out.write_str("It will be tried again later")?,
                }
                write!(out, ": {tries} of its tries failed by the farm's fault")?;
                if let Some(class) = class {
                    write!(out, ", the last as {class}")?;
                }
                if let Some(message) = message {
                    write!(out, " ({message})")?;
                }
                out.write_str(".")
            }
            Self::NoWorker { store_directory, system, features, since, away } => {
                write!(out, "No connected worker builds for {system} in {store_directory}")?;
                if !features.is_empty() {
                    write!(out, " and has {}", features.join(", "))?;
                }
                write!(out, ", since {since:.0}")?;
                if away.is_empty() {
                    out.write_str("; none that could is known.")
                } else {
                    write!(out, "; not connected: {}.", away.join(", "))
                }
            }
            Self::WorkersHeld { workers, count } => {
                let all = if *count == 1 { "The only connected worker" } else { "All connected workers" };
                write!(out, "{all} that could build it ")?;
                out.write_str(if *count == 1 { "gets no work: " } else { "get no work: " })?;
                for (number, held) in workers.iter().enumerate() {
                    write!(out, "{}{} ({})", if number == 0 { "" } else { ", " }, held.worker, held.reason)?;
                }
                out.write_str(if workers.len() < *count { " and others." } else { "." })
            }
            Self::WorkersDemand { features, count } => {
                let who = if *count == 1 { "1 worker builds" } else { "workers build" };
                let number = if *count == 1 { String::new() } else { format!("{count} ") };
                write!(out, "{number}{who} for its system only what requires {}.", features.join(", "))
            }
            Self::NoFreeSlot { slots, busy } => {
                write!(out, "No slot is free: {busy} of {slots} that could take it are busy.")
            }
            Self::Behind { builds: 1, .. } => out.write_str("One build goes before it."),
            Self::Behind { builds, or_more } => {
                write!(out, "{builds}{} builds go before it.", if *or_more { " or more" } else { "" })
            }
            Self::OverShare { specification, used, share } => write!(
                out,
                "{specification} has used {:.0} % of what those that wait have used of the farm, and its shares are {:.0} %: others \
                 have the next turns.",
                used * 100.0,
                share * 100.0
            ),
            Self::Next => out.write_str("Nothing stands before it: a free slot takes it."),
            Self::Stopping => out.write_str("It is being stopped, as an operator asked."),
            Self::WithWorker { worker, since, begun } => {
                let worker = worker.as_deref().unwrap_or("a worker");
                write!(out, "{worker} has it")?;
                if let Some(since) = since {
                    write!(out, " since {since:.0}")?;
                }
                out.write_str(if *begun { ", and builds it." } else { ", and gathers what it needs." })
            }
            Self::FailedDependency { build, name, state } => {
                out.write_str("Something that it needs did not succeed")?;
                if let (Some(build), Some(name)) = (build, name) {
                    let state = state.map_or("failed", |state| state.as_str());
                    write!(out, ": {name} (build {build}, {state})")?;
                }
                out.write_str(".")
            }
            Self::Canceled => out.write_str("It was canceled."),
        }
    }
}
