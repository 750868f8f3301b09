//! Buffers used again, so that large bodies cost no page faults.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of one buffer: large enough that a hop between threads costs little beside it.
pub(crate) const SIZE: usize = 256 * 1024;

/// Buffers kept while nobody uses them.
const SPARE: usize = 16;

/// A pool of equal buffers. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct BufferPool(Arc<Mutex<Vec<Box<[u8]>>>>);

impl BufferPool {
    /// Takes a buffer, whose contents are arbitrary.
    pub(crate) fn take(&self) -> Buffer {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Buffer { bytes: spare.unwrap_or_else(|| vec![0; SIZE].into()), pool: self.clone() }
    }
}

/// A buffer that goes back to its pool when dropped.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    pool: BufferPool,
}

impl Buffer {
    /// Gives the whole buffer to be filled.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Gives the whole buffer.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut spare = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE {
            spare.push(mem::take(&mut self.bytes));
        }
    }
}
