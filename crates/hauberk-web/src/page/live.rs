//! Word for pages that are looked at: something changed, read again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;

/// Changes come in storms; a page is told at most so often.
const CALM: Duration = Duration::from_millis(1500);
/// So often something is sent, so that a connection that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves `/events`.
pub(crate) async fn events(State(app): State<App>) -> Response {
    match Arc::clone(&app.followers).try_acquire_owned() {
        Ok(place) => follow(app, place).into_response(),
        Err(_) => {
            let words = "too many pages are followed live; try again later\n";
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], words).into_response()
        }
    }
}

/// Tells of changes as long as somebody listens, who holds the place.
fn follow(
    app: App,
    place: OwnedSemaphorePermit,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + Send> {
    // Browsers drop an event without data.
    let event = || Event::default().event("changed").data("read again");
    let stream = futures::stream::unfold((app, place, false), move |(mut app, place, rest)| async move {
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
        heard.then(|| (Ok(event()), (app, place, true)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}
