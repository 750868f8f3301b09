//! The surroundings that sockets share: ZeroMQ's own threads, and the thread that admits keys.

use std::sync::{Arc, Mutex, PoisonError};

use super::admission::{AdmissionPolicy, AdmissionThread, AdmitEveryKey};
use super::error::SocketError;

/// What the sockets of a program, or of a part of it, have in common.
///
/// A context has two threads of its own and, once a socket listens, a third that admits keys. It holds some
/// 500 routers or 300 dealers (libzmq allows 1,023 sockets, monitors included). Clones share it; when the last clone and the last socket are
/// gone, it ends in the background, after what was sent before has left or its socket's linger time is over.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    /// `None` only while it is being dropped.
    raw: Option<zmq::Context>,
    policy: Arc<dyn AdmissionPolicy>,
    admission: Mutex<Option<AdmissionThread>>,
}

impl Context {
    /// Makes a context whose listening sockets admit every key, leaving it to the server what a key may do.
    pub fn new() -> Self {
        Self::with_admission(AdmitEveryKey)
    }

    /// Makes a context whose listening sockets ask `policy` about every peer.
    pub fn with_admission(policy: impl AdmissionPolicy) -> Self {
        Self(Arc::new(Inner {
            raw: Some(zmq::Context::new()),
            policy: Arc::new(policy),
            admission: Mutex::new(None),
        }))
    }

    /// Ends the context and waits until what was sent has left, or the linger time of its socket is over. Only the last clone
    /// does this, and only after its sockets are gone; for others it returns at once.
    pub async fn close(self) {
        if let Some(inner) = Arc::into_inner(self.0) {
            // An error means that the runtime is ending, and then the closure was dropped, which closes as well.
            let _ = tokio::task::spawn_blocking(move || drop(inner)).await;
        }
    }

    pub(super) fn socket(&self, kind: zmq::SocketType) -> Result<zmq::Socket, SocketError> {
        self.raw().socket(kind).map_err(SocketError::setup("make a ZeroMQ socket"))
    }

    /// Starts the thread that admits keys unless it runs already.
    pub(super) fn admit(&self) -> Result<(), SocketError> {
        let mut admission = self.0.admission.lock().unwrap_or_else(PoisonError::into_inner);
        if admission.is_none() {
            *admission = Some(AdmissionThread::start(self.raw(), Arc::clone(&self.0.policy))?);
        }
        Ok(())
    }

    fn raw(&self) -> &zmq::Context {
        self.0.raw.as_ref().expect("the context is there until it is dropped")
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Context")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let admission = self.admission.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let raw = self.raw.take();
        // Ending a context waits for what its sockets have yet to send, so it must not happen in an async task.
        let end = move || {
            drop(admission);
            drop(raw);
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}
