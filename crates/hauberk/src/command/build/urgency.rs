//! `hauberk build priority` and `emergency`.

use clap::Args;
use hauberk_database::operators;

use crate::command::named::{find_build, find_builds};
use crate::command::urgency::{PriorityArgument, changes_object, changes_text};
use crate::command::{DatabaseLocation, user};
use crate::exit::Failure;
use crate::output::Form;

/// Give a build a priority, and with it all that it needs
#[derive(Debug, Args)]
pub(super) struct SetPriority {
    /// The build
    #[arg(value_name = "BUILD")]
    build: String,
    #[command(flatten)]
    priority: PriorityArgument,
    #[command(flatten)]
    form: Form,
}

/// Put builds before everything else, with all that they need
#[derive(Debug, Args)]
pub(super) struct Emergency {
    /// The builds
    #[arg(required = true, value_name = "BUILD")]
    builds: Vec<String>,
    /// Not any more
    #[arg(long)]
    off: bool,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn priority(options: SetPriority, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let build = find_build(&database.client().await?, &options.build).await?;
    let all = operators::set_priority(&database, &user(), &[build], options.priority.get()).await?;
    options.form.show(&changes_object(&all), || changes_text(&all))
}

pub(super) async fn emergency(options: Emergency, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let builds = find_builds(&database.client().await?, &options.builds).await?;
    let all = operators::set_build_emergency(&database, &user(), &builds, !options.off).await?;
    options.form.show(&changes_object(&all), || changes_text(&all))
}
