//! What operators do to the order: priorities, and what goes before everything.
//!
//! What is asked for a build is handed down to everything it needs and that has not succeeded, so that it does not wait for something
//! less urgent; what is taken back is taken back there as well, unless something else wants it. The same happens when what was urgent, or had a
//! long path behind it, is canceled, and when it begins anew. The servers are told at once.
//!
//! What fails takes its dependents along on the path of results, which decides nothing about the order: it leaves a note (`order_notes`), and a
//! server that sees one decides anew a moment later ([`settle`]). What else those dependents needed is built all the same, as others may want it,
//! but not before everything for their sake.

use std::collections::HashMap;

use serde_json::json;

use crate::statement::{Record, statement};
use crate::{
    BuildId, Client, DatabaseError, EvaluationId, GenericClient, Priority, audit, begin, commit, control,
    evaluations,
};

/// Notes that are looked at together.
const NOTES: i64 = 1000;

/// What an operator puts before everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// A build.
    Build(BuildId),
    /// All that an evaluation wants.
    Evaluation(EvaluationId),
}

/// How urgent a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Urgency {
    /// Before everything, whatever the priority.
    pub emergency: bool,
    /// Among the others.
    pub priority: Priority,
}

impl Urgency {
    /// The more urgent of both, in either respect.
    fn at_least(self, other: Self) -> Self {
        Self { emergency: self.emergency || other.emergency, priority: self.priority.min(other.priority) }
    }
}

/// What an order of an operator changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// For a build: how urgent it is now. More than was asked for if something that needs it is.
    pub urgency: Option<Urgency>,
    /// The builds whose urgency is another now, what they need included.
    pub builds: Vec<BuildId>,
}

/// Gives a build a priority, or (`None`) that of the jobs that want it. What it needs inherits it. `by` is recorded.
///
/// Gives `None` when there is no such build, or it has succeeded. Needs a transaction.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn set_priority(
    client: &impl GenericClient,
    build: BuildId,
    priority: Option<Priority>,
    by: &str,
) -> Result<Option<Changed>, DatabaseError> {
    control::lock_graph(client).await?;
    if statement!("order/ask_priority").optional(client, &[&build, &priority]).await?.is_none() {
        return Ok(None);
    }
    let changed = renew(client, &[build], Some(build), Held::None).await?.changed;
    let detail = json!({ "priority": priority, "changed": changed.builds.len() });
    audit::record(client, by, "build.priority", &build.to_string(), Some(&detail)).await?;
    Ok(Some(changed))
}

/// Puts a build, or all that an evaluation wants, before everything, with what it needs; or (`on` false) does not any more. `by` is
/// recorded.
///
/// Gives `None` when there is no such thing, or the build has succeeded. Needs a transaction.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn set_emergency(
    client: &impl GenericClient,
    subject: Subject,
    on: bool,
    by: &str,
) -> Result<Option<Changed>, DatabaseError> {
    control::lock_graph(client).await?;
    let (found, builds, of, action, name) = match subject {
        Subject::Build(build) => {
            let found = statement!("order/ask_emergency").optional(client, &[&build, &on]).await?;
            (found, vec![build], Some(build), "build.emergency", build.to_string())
        }
        Subject::Evaluation(evaluation) => {
            let asked = statement!("order/ask_emergency_of_evaluation");
            let found = asked.optional(client, &[&evaluation, &on]).await?;
            let rows = statement!("order/builds_of_evaluation").all(client, &[&evaluation]).await?;
            let builds = rows.iter().map(|row| row.get("build_id")).collect::<Result<_, _>>()?;
            (found, builds, None, "evaluation.emergency", evaluation.to_string())
        }
    };
    if found.is_none() {
        return Ok(None);
    }
    let changed = renew(client, &builds, of, Held::None).await?.changed;
    let detail = json!({ "on": on, "changed": changed.builds.len() });
    audit::record(client, by, action, &name, Some(&detail)).await?;
    Ok(Some(changed))
}

/// Decides anew how urgent those are that these builds need, and how long the paths behind them are: for builds that are not wanted any more.
pub(crate) async fn without(client: &impl GenericClient, builds: &[BuildId]) -> Result<(), DatabaseError> {
    if builds.is_empty() {
        return Ok(());
    }
    let needed = ids(&statement!("order/needed").all(client, &[&builds]).await?)?;
    renew_or_note(client, &needed, builds).await
}

/// Decides anew how urgent the jobs of a canceled evaluation are that somebody else wants as well, where its wish had counted.
pub(crate) async fn without_evaluation(
    client: &impl GenericClient,
    evaluation: EvaluationId,
) -> Result<(), DatabaseError> {
    let decided = ids(&statement!("order/decided_by").all(client, &[&evaluation]).await?)?;
    renew_or_note(client, &decided, &decided).await
}

/// Decides anew how urgent those are that these builds need, and they themselves: for builds that begin anew.
pub(crate) async fn with(client: &impl GenericClient, builds: &[BuildId]) -> Result<(), DatabaseError> {
    renew_or_note(client, builds, builds).await
}

/// Decides anew about `builds` at once; about what somebody holds, later, by a note of `about`.
async fn renew_or_note(
    client: &impl GenericClient,
    builds: &[BuildId],
    about: &[BuildId],
) -> Result<(), DatabaseError> {
    if renew(client, builds, None, Held::Some).await?.passed_over {
        note(client, about).await?;
    }
    Ok(())
}

/// Leaves a note of builds that are over without success together with what needs them, or that begin anew: what else is needed with them is to
/// be decided about anew. Costs a row each, and nothing else.
pub(crate) async fn note(client: &impl GenericClient, builds: &[BuildId]) -> Result<(), DatabaseError> {
    statement!("order/note").execute(client, &[&builds]).await?;
    Ok(())
}

/// What came of a look at the notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    /// Builds whose urgency is another now.
    pub changed: usize,
    /// Whether there is more to do: notes that were left for another look, as somebody holds builds of theirs, or as there are so many.
    pub again: bool,
}

/// Decides anew how urgent those are that builds of notes needed, or need again, and how long the paths behind them are. What somebody holds
/// is passed over, and its note kept.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn settle(client: &mut Client) -> Result<Settled, DatabaseError> {
    if noted(client).await?.is_empty() {
        return Ok(Settled::default());
    }
    let transaction = begin(client).await?;
    control::lock_graph(&transaction).await?;
    // Again: another server may have seen them as well.
    let notes = noted(&transaction).await?;
    let builds = ids(&statement!("order/above").all(&transaction, &[&notes]).await?)?;
    let renewed = renew(&transaction, &builds, None, Held::Some).await?;
    let again = renewed.passed_over || i64::try_from(notes.len()).unwrap_or(i64::MAX) >= NOTES;
    if !renewed.passed_over {
        statement!("order/forget_notes").execute(&transaction, &[&notes]).await?;
    }
    commit(transaction).await?;
    Ok(Settled { changed: renewed.changed.builds.len(), again })
}

async fn noted(client: &impl GenericClient) -> Result<Vec<i64>, DatabaseError> {
    let rows = statement!("order/noted").all(client, &[&NOTES]).await?;
    rows.iter().map(|row| row.get("note_id")).collect()
}

fn ids(rows: &[Record]) -> Result<Vec<BuildId>, DatabaseError> {
    rows.iter().map(|row| row.get("build_id")).collect()
}

/// What the transaction holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    None,
    /// Builds, whatever their numbers: waiting for others could go round in a circle with those who record results.
    Some,
}

/// What came of a decision.
#[derive(Debug, Default)]
struct Renewed {
    changed: Changed,
    /// Whether builds were left as they are because somebody holds them.
    passed_over: bool,
}

/// A build whose urgency is decided anew.
struct Node {
    was: Urgency,
    now: Urgency,
    /// Milliseconds that it should take.
    expected: i64,
    /// Milliseconds of the longest chain that begins with it, as it was.
    path: i64,
    /// Milliseconds of the longest chain that waits for it.
    behind: i64,
    /// Whether it is still to be built.
    unfinished: bool,
    /// What needs it among the nodes and is not decided yet.
    open: usize,
    /// What it needs among the nodes.
    needs: Vec<BuildId>,
}

/// Decides anew how urgent `builds` are and all that they need, and tells the servers.
async fn renew(
    client: &impl GenericClient,
    builds: &[BuildId],
    of: Option<BuildId>,
    held: Held,
) -> Result<Renewed, DatabaseError> {
    if builds.is_empty() {
        return Ok(Renewed::default());
    }
    let mut nodes: HashMap<BuildId, Node> = HashMap::new();
    for row in statement!("order/below").all(client, &[&builds]).await? {
        let was = Urgency { emergency: row.get("emergency")?, priority: row.get("priority")? };
        let now = Urgency { emergency: row.get("own_emergency")?, priority: row.get("own_priority")? };
        let node = Node {
            was,
            now,
            expected: row.get("expected_ms")?,
            path: row.get("remaining_path")?,
            behind: 0,
            unfinished: row.get("unfinished")?,
            open: 0,
            needs: Vec::new(),
        };
        nodes.insert(row.get("build_id")?, node);
    }
    let ids: Vec<BuildId> = nodes.keys().copied().collect();
    for row in statement!("order/dependents").all(client, &[&ids]).await? {
        let (dependency, build): (BuildId, BuildId) = (row.get("dependency_id")?, row.get("build_id")?);
        if let Some(above) = nodes.get_mut(&build) {
            above.needs.push(dependency);
            if let Some(below) = nodes.get_mut(&dependency) {
                below.open += 1;
            }
        } else if let Some(below) = nodes.get_mut(&dependency) {
            let above = Urgency { emergency: row.get("emergency")?, priority: row.get("priority")? };
            below.now = below.now.at_least(above);
            below.behind = below.behind.max(row.get("remaining_path")?);
        }
    }
    hand_down(&mut nodes);

    let mut changed: Vec<(BuildId, &Node)> =
        nodes.iter().filter(|(_, node)| node.changes()).map(|(id, node)| (*id, node)).collect();
    changed.sort_unstable_by_key(|(id, _)| *id);
    let mut passed_over = false;
    if !changed.is_empty() {
        let ids: Vec<BuildId> = changed.iter().map(|(id, _)| *id).collect();
        let priorities: Vec<Priority> = changed.iter().map(|(_, node)| node.now.priority).collect();
        let emergencies: Vec<bool> = changed.iter().map(|(_, node)| node.now.emergency).collect();
        let paths: Vec<i64> = changed.iter().map(|(_, node)| node.new_path()).collect();
        let set = match held {
            Held::None => statement!("order/set_urgency"),
            Held::Some => statement!("order/set_urgency_unless_held"),
        };
        let written = set.execute(client, &[&ids, &priorities, &emergencies, &paths]).await?;
        passed_over = usize::try_from(written).is_ok_and(|written| written < ids.len());
        statement!("evaluations/notify_ready").execute(client, &[]).await?;
        evaluations::notify_changed(client).await?;
    }
    let urgency = of.and_then(|build| nodes.get(&build)).map(|node| node.now);
    let builds = changed.iter().filter(|(_, node)| node.was != node.now).map(|(id, _)| *id).collect();
    Ok(Renewed { changed: Changed { urgency, builds }, passed_over })
}

impl Node {
    /// Milliseconds of the longest chain that begins with it: as before where that says much the same, and for a build that is over.
    fn new_path(&self) -> i64 {
        let new = self.expected.saturating_add(self.behind);
        if !self.unfinished || (new - self.path).abs() <= self.path / 10 { self.path } else { new }
    }

    fn changes(&self) -> bool {
        self.was != self.now || self.new_path() != self.path
    }
}

/// Hands what each build has down to what it needs, those first that nothing undecided needs. What is over needs nothing any more.
fn hand_down(nodes: &mut HashMap<BuildId, Node>) {
    let mut decided: Vec<BuildId> =
        nodes.iter().filter(|(_, node)| node.open == 0).map(|(id, _)| *id).collect();
    while let Some(build) = decided.pop() {
        let Some(node) = nodes.get_mut(&build) else { continue };
        let (urgency, path, needs) = (node.now, node.new_path(), std::mem::take(&mut node.needs));
        let hurries = node.unfinished;
        for needed in needs {
            if let Some(below) = nodes.get_mut(&needed) {
                if hurries {
                    below.now = below.now.at_least(urgency);
                    below.behind = below.behind.max(path);
                }
                below.open = below.open.saturating_sub(1);
                if below.open == 0 {
                    decided.push(needed);
                }
            }
        }
    }
}
