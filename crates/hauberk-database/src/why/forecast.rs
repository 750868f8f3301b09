//! When a build will begin and end.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_postgres::GenericClient;
use hauberk_order::{Forecast, Outlook, remaining, remaining_paths};
use serde::Serialize;
use tokio_postgres::types::ToSql;

use super::{Subject, candidates, millis};
use crate::statement::statement;
use crate::{BuildId, BuildState, DatabaseError, SpecificationId, durations};

/// Builds of the queue that are looked at; what is behind them is reckoned to be alike.
const LOOKED_AT: i64 = 5000;
/// Running builds that are looked at on each server, or a few more; the rest is reckoned to be alike.
const RUNNING: i32 = 200;
/// Builds below one that are looked at.
const BELOW: i64 = 2000;

/// When a build will begin and end, in seconds from now, and how far that may be off.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Foretold {
    /// When it begins; nothing for one that has begun.
    pub start: Option<Seconds>,
    /// When it ends.
    pub end: Seconds,
}

/// A time from now, in seconds; at least eight of ten lie between `earliest` and `latest`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Seconds {
    /// The most likely.
    pub likely: f64,
    /// Few are sooner.
    pub earliest: f64,
    /// Few are later.
    pub latest: f64,
}

impl From<hauberk_order::Span> for Seconds {
    fn from(span: hauberk_order::Span) -> Self {
        let seconds = |duration: Duration| (duration.as_secs_f64() * 10.0).round() / 10.0;
        Self { likely: seconds(span.likely), earliest: seconds(span.earliest), latest: seconds(span.latest) }
    }
}

/// Forecasts when a build begins and ends. Gives `None` for one that is unknown, is over, is kept back, or that no worker can take.
///
/// # Errors
/// Any failure of the statements, or a row that cannot be read.
pub async fn forecast(
    client: &impl GenericClient,
    build: BuildId,
) -> Result<Option<Foretold>, DatabaseError> {
    let Some(row) = statement!("why/build").optional(client, &[&build]).await? else { return Ok(None) };
    let subject = Subject::read(&row)?;
    let names = std::iter::once((subject.system.as_str(), subject.name.as_str()));
    let own = durations::history(client, names).await?.estimate(&subject.system, &subject.name);
    match subject.state {
        BuildState::Assigned | BuildState::Running => {
            let elapsed = Duration::from_secs_f64(subject.runs_for.unwrap_or(0.0).max(0.0));
            let left = |whole| remaining(whole, elapsed);
            let end = hauberk_order::Span {
                likely: left(own.duration),
                earliest: own.shortest.saturating_sub(elapsed),
                latest: left(own.longest),
            };
            return Ok(Some(Foretold { start: None, end: end.into() }));
        }
        BuildState::Waiting | BuildState::Deferred | BuildState::Ready => {}
        _ => return Ok(None),
    }
    let (able, chain, ahead) =
        tokio::try_join!(candidates(client, &subject), chain(client, &subject), ahead(client, &subject),)?;
    let Ahead { all: ahead, ready: ready_ahead } = ahead;
    let slots: i64 = able.iter().filter(|worker| worker.can_take()).map(|worker| worker.slots).sum();
    if slots == 0 {
        return Ok(None);
    }
    // Slots of a farm are few.
    let Forecast { start, end } = Outlook { chain, ahead, ready_ahead, slots: slots as f64, own }.forecast();
    Ok(Some(Foretold { start: Some(start.into()), end: end.into() }))
}

/// Slot time of what goes before a build, and of what runs.
struct Ahead {
    /// All of it.
    all: Duration,
    /// What of it waits for nothing but slots, or runs.
    ready: Duration,
}

/// Slot time of builds that wait, in seconds, and of those of them that are ready.
#[derive(Clone, Copy, Default)]
struct Work {
    all: f64,
    ready: f64,
}

impl Work {
    fn add(&mut self, other: Self) {
        self.all += other.all;
        self.ready += other.ready;
    }

    /// As much of it as so many seconds allow, of which what is ready comes first.
    fn within(self, seconds: f64) -> Self {
        Self { all: self.all.min(seconds), ready: self.ready.min(seconds) }
    }

    fn times(self, factor: f64) -> Self {
        Self { all: self.all * factor, ready: self.ready * factor }
    }
}

/// Reckons what goes before a build.
async fn ahead(client: &impl GenericClient, subject: &Subject) -> Result<Ahead, DatabaseError> {
    let place: [&(dyn ToSql + Sync); 7] = [
        &LOOKED_AT,
        &subject.id,
        &subject.store_directory,
        &subject.system,
        &subject.urgency,
        &subject.specification,
        &subject.path_step,
    ];
    let store: [&(dyn ToSql + Sync); 3] = [&subject.store_directory, &subject.system, &RUNNING];
    let (rows, running) = tokio::try_join!(
        statement!("why/queue_before").all(client, &place),
        statement!("why/running").all(client, &store),
    )?;
    let (mut before, mut own, mut own_shares) = (Work::default(), Work::default(), 100.0);
    let mut rivals: HashMap<SpecificationId, (Work, f64)> = HashMap::new();
    let mut looked_at = 0;
    for row in &rows {
        looked_at += row.get::<i64>("builds")?;
        // Whole seconds of days are far fewer than what a float holds.
        let seconds = |millis: i64| millis as f64 / 1000.0;
        let work = Work { all: seconds(row.get("work_ms")?), ready: seconds(row.get("ready_ms")?) };
        let specification: SpecificationId = row.get("specification_id")?;
        let shares = f64::from(row.get::<i32>("shares")?);
        if !row.get::<bool>("alike")? {
            before.add(work);
        } else if specification == subject.specification {
            own.add(work);
            own_shares = shares;
        } else {
            rivals.insert(specification, (work, shares));
        }
    }
    // While this one's specification works its way to it, the others get what their shares say, if they have so much.
    let mut work = before;
    work.add(own);
    for (rival, shares) in rivals.values() {
        work.add(rival.within((own.all + 1.0) * shares / own_shares));
    }
    if looked_at >= LOOKED_AT - 1 {
        let plan = statement!("why/about_as_many").one(client, &[&subject.urgency]).await?;
        let plan: serde_json::Value = plan.get("QUERY PLAN")?;
        let about = plan[0]["Plan"]["Plan Rows"].as_f64().unwrap_or(0.0);
        work = work.times((about / looked_at as f64).max(1.0));
    }
    for row in &running {
        let left = remaining(millis(row.get("expected_ms")?), millis(row.get("elapsed_ms")?));
        let seconds = left.as_secs_f64() * f64::from(row.get::<i32>("stands_for")?);
        work.add(Work { all: seconds, ready: seconds });
    }
    let duration = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Ok(Ahead { all: duration(work.all), ready: duration(work.ready) })
}

/// The time of the longest chain of unfinished builds below one, without itself.
async fn chain(client: &impl GenericClient, subject: &Subject) -> Result<Duration, DatabaseError> {
    if subject.state != BuildState::Waiting {
        return Ok(Duration::ZERO);
    }
    let rows = statement!("why/below").all(client, &[&subject.id, &BELOW]).await?;
    let mut places: HashMap<BuildId, usize> = HashMap::with_capacity(rows.len());
    for (place, row) in rows.iter().enumerate() {
        places.insert(row.get("build_id")?, place);
    }
    let mut durations = Vec::with_capacity(rows.len());
    // Upside down: what needs a build comes after it, so the path that begins with this one is the chain below it.
    let mut dependents: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
    for (place, row) in rows.iter().enumerate() {
        let expected = millis(row.get("expected_ms")?);
        durations.push(match row.get::<Option<i64>>("elapsed_ms")? {
            _ if row.get::<BuildId>("build_id")? == subject.id || row.get("built")? => Duration::ZERO,
            Some(elapsed) => remaining(expected, millis(elapsed)),
            None => expected,
        });
        for needed in row.get::<Vec<BuildId>>("needs")? {
            if let Some(&below) = places.get(&needed) {
                dependents[below].push(place);
            }
        }
    }
    let paths = remaining_paths(&durations, |place| &dependents[place]).unwrap_or_default();
    Ok(places.get(&subject.id).and_then(|place| paths.get(*place)).copied().unwrap_or_default())
}
