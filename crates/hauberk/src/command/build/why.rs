//! `hauberk build why`.

use anyhow::anyhow;
use clap::Args;
use hauberk_database::why::{self, Foretold, Seconds, Why};
use serde_json::json;

use crate::command::DatabaseLocation;
use crate::command::named::find_build;
use crate::exit::Failure;
use crate::output::{Form, plain};

/// Say why a build is not running, and when it should begin and end
#[derive(Debug, Args)]
pub(super) struct Options {
    /// The build
    #[arg(value_name = "BUILD")]
    build: String,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(options: Options, location: &DatabaseLocation) -> Result<(), Failure> {
    let database = location.connect().await?;
    let client = database.client().await?;
    let build = find_build(&client, &options.build).await?;
    let Some(why) = why::why(&client, build).await? else {
        return Err(Failure::configuration(anyhow!("there is no such build: {build}")));
    };
    let forecast = why::forecast(&client, build).await?;
    let object = json!({ "why": why, "text": why.to_string(), "forecast": forecast });
    options.form.show(&object, || text(&why, forecast))
}

fn text(why: &Why, forecast: Option<Foretold>) -> String {
    let mut lines = vec![format!("{} (build {}): {}", plain(&why.name), why.build, why.state.as_str())];
    lines.extend(why.reasons.iter().map(|reason| format!("- {}", plain(&reason.to_string()))));
    if let Some(Foretold { start, end }) = forecast {
        lines.extend(start.map(|start| format!("It should begin in {}.", span(start))));
        lines.push(format!("It should end in {}.", span(end)));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn span(span: Seconds) -> String {
    let Seconds { likely, earliest, latest } = span;
    format!("about {} (from {} to {})", time(likely), time(earliest), time(latest))
}

fn time(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}
