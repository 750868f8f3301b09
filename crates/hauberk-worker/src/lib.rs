//! Slots, building, log spool and health of a remote-worker.
