//! `hauberk build cancel` and `restart`.

use clap::Args;
use hauberk_database::BuildId;
use hauberk_database::control::{Canceled, Restarted};
use hauberk_database::operators::{self, Extent, Only};
use serde::Serialize;

use crate::command::named::find_builds;
use crate::command::{DatabaseLocation, user};
use crate::exit::Failure;
use crate::output::{Form, counted};

/// Cancel builds, and what needs them, whoever wants them; what runs is stopped
#[derive(Debug, Args)]
pub(super) struct Cancel {
    /// The builds
    #[arg(required = true, value_name = "BUILD")]
    builds: Vec<String>,
    #[command(flatten)]
    form: Form,
}

/// Let builds begin anew that failed or were canceled
///
/// What a build failed by begins anew with it, and what had failed only because of it. Nothing that has succeeded is built again.
#[derive(Debug, Args)]
pub(super) struct Restart {
    /// The builds
    #[arg(required = true, value_name = "BUILD")]
    builds: Vec<String>,
    /// With all they need, through all levels
    #[arg(long)]
    dependencies: bool,
    /// With all that needs them, through all levels, also what failed by its own fault
    #[arg(long)]
    dependents: bool,
    #[command(flatten)]
    only: OnlyOptions,
    #[command(flatten)]
    form: Form,
}

/// Which builds begin anew, by how they ended.
#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
pub(crate) struct OnlyOptions {
    /// Only what failed by its own or the farm's fault
    #[arg(long)]
    failed: bool,
    /// Only what was canceled, and needs nothing that failed
    #[arg(long)]
    canceled: bool,
}

impl From<OnlyOptions> for Only {
    fn from(options: OnlyOptions) -> Self {
        match options {
            OnlyOptions { failed: true, .. } => Self::Failed,
            OnlyOptions { canceled: true, .. } => Self::Canceled,
            OnlyOptions { failed: false, canceled: false } => Self::Any,
        }
    }
}

/// What came of a cancellation, for programs.
#[derive(Debug, Serialize)]
pub(crate) struct CanceledObject<'a> {
    canceled: &'a [BuildId],
    stopping: &'a [BuildId],
    over: &'a [BuildId],
}

impl<'a> From<&'a Canceled> for CanceledObject<'a> {
    fn from(outcome: &'a Canceled) -> Self {
        Self { canceled: &outcome.canceled, stopping: &outcome.stopping, over: &outcome.over }
    }
}

/// Says what came of a cancellation.
pub(crate) fn canceled_text(outcome: &Canceled) -> String {
    let Canceled { canceled, stopping, over, unknown: _ } = outcome;
    let mut text = format!("canceled {}\n", counted(canceled));
    if !stopping.is_empty() {
        text.push_str(&format!("{} are being stopped, and canceled then\n", counted(stopping)));
    }
    if !over.is_empty() {
        text.push_str(&format!("{} are built already or over, and stay as they are\n", counted(over)));
    }
    text
}

#[derive(Debug, Serialize)]
struct RestartedObject<'a> {
    revived: &'a [BuildId],
    succeeded: &'a [BuildId],
    unfinished: &'a [BuildId],
}

pub(super) async fn cancel(options: Cancel, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let builds = find_builds(&database.client().await?, &options.builds).await?;
    let outcome = operators::cancel_builds(&database, &user(), &builds).await?;
    options.form.show(&CanceledObject::from(&outcome), || canceled_text(&outcome))
}

pub(super) async fn restart(options: Restart, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let builds = find_builds(&database.client().await?, &options.builds).await?;
    let extent = Extent { dependencies: options.dependencies, dependents: options.dependents };
    let outcome = operators::restart_builds(&database, &user(), &builds, extent, options.only.into()).await?;
    let Restarted { revived, succeeded, unfinished, unknown: _ } = &outcome;
    options.form.show(&RestartedObject { revived, succeeded, unfinished }, || {
        let mut text = format!("{} begin anew\n", counted(revived));
        if !succeeded.is_empty() {
            text.push_str(&format!("{} have succeeded, and stay as they are\n", counted(succeeded)));
        }
        if !unfinished.is_empty() {
            text.push_str(&format!("{} are under way\n", counted(unfinished)));
        }
        text
    })
}
