//! Word for pages that are looked at: something changed, read again.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;

use crate::app::App;

/// Changes come in storms; a page is told at most so often.
const CALM: Duration = Duration::from_millis(1500);
/// So often something is sent, so that a connection that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves `/events`.
pub(crate) async fn events(
    State(app): State<App>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + Send> {
    // Browsers drop an event without data.
    let event = || Event::default().event("changed").data("read again");
    let stream = futures::stream::unfold((app, false), move |(mut app, rest)| async move {
        let stop = app.stop.clone();
        let next = async {
            if rest {
                tokio::time::sleep(CALM).await;
            }
            app.changes.next().await
        };
        let heard = tokio::select! {
            heard = next => heard,
            () = stop.cancelled() => false,
        };
        heard.then(|| (Ok(event()), (app, true)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
