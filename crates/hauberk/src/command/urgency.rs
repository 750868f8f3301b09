//! Priorities and emergencies as the command line has them.

use clap::Args;
use hauberk_database::priority_control::{Changed, Urgency};
use hauberk_database::{BuildId, Priority};
use serde_json::{Value, json};

use crate::output::counted;

/// A priority, or none of its own.
#[derive(Debug, Args)]
pub(crate) struct PriorityArgument {
    /// 0, the most urgent, to 99
    #[arg(value_name = "0-99", value_parser = parse, required_unless_present = "reset")]
    priority: Option<Priority>,
    /// Go by the priorities of specification and job again
    #[arg(long, conflicts_with = "priority")]
    reset: bool,
}

impl PriorityArgument {
    /// Gives the priority; nothing for that of the jobs.
    pub(crate) fn get(&self) -> Option<Priority> {
        if self.reset { None } else { self.priority }
    }
}

fn parse(text: &str) -> Result<Priority, String> {
    let number: i64 = text.parse().map_err(|_| format!("`{text}` is no number; give 0 to 99"))?;
    Priority::try_from(number).map_err(|error| error.to_string())
}

/// What an order changed, for programs.
pub(crate) fn changed_object(changed: &Changed) -> Value {
    let urgency = changed
        .urgency
        .map(|Urgency { emergency, priority }| json!({ "emergency": emergency, "priority": priority }));
    json!({ "urgency": urgency, "changed": changed.builds })
}

/// What orders about several builds changed, for programs.
pub(crate) fn changes_object(all: &[(BuildId, Changed)]) -> Value {
    let one = |(build, changed): &(BuildId, Changed)| {
        let mut object = changed_object(changed);
        object["build"] = json!(build);
        object
    };
    all.iter().map(one).collect()
}

/// Says what an order changed.
pub(crate) fn changed_text(changed: &Changed) -> String {
    format!("{} have another urgency now\n", counted(&changed.builds))
}

/// Says what orders about several builds changed.
pub(crate) fn changes_text(all: &[(BuildId, Changed)]) -> String {
    let one = |(build, changed): &(BuildId, Changed)| {
        let now = match changed.urgency {
            Some(Urgency { emergency: true, .. }) => "goes before everything".to_owned(),
            Some(Urgency { emergency: false, priority }) => format!("has priority {priority}"),
            None => "is unchanged".to_owned(),
        };
        format!("build {build} {now}; {}", changed_text(changed))
    };
    all.iter().map(one).collect()
}
