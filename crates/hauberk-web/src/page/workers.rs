//! `/workers`: who builds what.

use askama::Template;
use axum::extract::State;
use hauberk_database::pages;
use hauberk_database::tokens::{self, Token};

use super::slots::{Presence, Row, Totals};
use super::{Page, render};
use crate::app::App;
use crate::operators::{Session, Visitor};
use crate::view as v;

/// Open attempts that are read; a farm has fewer slots.
const ATTEMPTS: i64 = 10_000;

#[derive(Template)]
#[template(path = "workers.html")]
struct Workers {
    machines: Vec<Machine>,
    totals: Totals,
    /// Machines that were seen.
    known: usize,
    operator: Option<Session>,
    /// Tokens that still admit machines, for operators.
    tokens: Vec<Token>,
}

struct Machine {
    name: String,
    totals: Totals,
    rows: Vec<Row>,
}

/// Serves `/workers`.
pub(crate) async fn show(State(app): State<App>, Visitor(operator): Visitor) -> Page {
    let client = app.database.client().await?;
    let workers = pages::workers(&client, None).await?;
    let attempts = pages::open_attempts(&client, ATTEMPTS).await?;
    let rows = Row::gather(workers, &attempts);
    let totals = Totals::of(&rows);
    let mut machines: Vec<Machine> = Vec::new();
    for row in rows {
        match machines.last_mut() {
            Some(machine) if machine.name == row.worker.machine => machine.rows.push(row),
            _ => machines.push(Machine {
                name: row.worker.machine.clone(),
                totals: Totals::default(),
                rows: vec![row],
            }),
        }
    }
    // Workers that were enrolled and never came have no machine yet.
    machines.sort_by_key(|machine| machine.name.is_empty());
    for machine in &mut machines {
        machine.totals = Totals::of(&machine.rows);
    }
    let known = machines.iter().filter(|machine| !machine.name.is_empty()).count();
    let tokens = match operator {
        Some(_) => tokens::list(&client).await?.into_iter().filter(|token| token.spent().is_none()).collect(),
        None => Vec::new(),
    };
    render(&Workers { machines, totals, known, operator, tokens })
}
