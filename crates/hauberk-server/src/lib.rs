//! Worker sessions, dispatch, log reception and fetching.
