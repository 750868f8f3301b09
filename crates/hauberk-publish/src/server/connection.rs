//! One connection of a client: requests in, answers out, in their order.

use std::{
    future::{Future, poll_fn},
    io,
    mem::{self, MaybeUninit},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::BufMut;
use futures::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    task::{spawn_blocking, yield_now},
    time::{Instant, Sleep, sleep, timeout_at},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{
    activity::Activity,
    body::Body,
    config::Limits,
    handler::Handler,
    heat::Heat,
    metrics::Metrics,
    pump::{Pump, Still},
    reply::{self, Reply},
    request::{MAX_HEAD, Method, Request},
    socket::Socket,
    status::Status,
};

/// Bytes taken from a socket at a time.
const READ: usize = 8 * 1024;

/// Bytes of answers gathered, while requests are at hand, before they are sent.
const GATHER: usize = 64 * 1024;

/// Bytes a client must take within the time allowed, while there is something for it to take.
const LEAST: u64 = 16 * 1024;

/// How long, and for how many bytes, a client that has sent too much is listened to, so that it sees why it is left.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// What connections share.
pub(super) struct Shared {
    /// Answers requests.
    pub(super) handler: Arc<Handler>,
    /// Counts them.
    pub(super) metrics: Arc<Metrics>,
    /// Bounds them.
    pub(super) limits: Limits,
    /// Ends them.
    pub(super) stop: CancellationToken,
}

/// Serves a connection to its end.
///
/// # Errors
/// A client that is gone or too slow; there is nobody to tell it to but the log.
pub(super) async fn serve(socket: Socket, shared: &Shared, activity: Arc<Activity>) -> io::Result<()> {
    let mut connection = Connection {
        socket,
        shared,
        activity,
        input: Vec::new(),
        output: Vec::new(),
        heat: Heat::default(),
        timer: Box::pin(sleep(shared.limits.header_timeout)),
    };
    let stopped = pin!(shared.stop.cancelled());
    connection.run(stopped).await
}

struct Connection<'a> {
    socket: Socket,
    shared: &'a Shared,
    activity: Arc<Activity>,
    /// Bytes received that belong to no request yet.
    input: Vec<u8>,
    /// Answers that are not sent yet.
    output: Vec<u8>,
    /// How quick the client is.
    heat: Heat,
    /// Rings no later than a head is due; set again only when it rings.
    timer: Pin<Box<Sleep>>,
}

/// What a client sent.
enum Received {
    Request(Request),
    /// Something that is answered with this status, and then no more.
    Nonsense(Status),
    /// Nothing, and nothing will come.
    End,
}

impl Connection<'_> {
    async fn run(&mut self, mut stopped: Pin<&mut WaitForCancellationFuture<'_>>) -> io::Result<()> {
        loop {
            let mut request = match self.receive(stopped.as_mut()).await? {
                Received::Request(request) => request,
                Received::Nonsense(status) => return self.refuse(status).await,
                Received::End => return Ok(()),
            };
            let reply = {
                let activity = Arc::clone(&self.activity);
                let _answering = activity.answering();
                match request.method {
                    Method::Patch | Method::Post => Box::pin(self.take(&mut request)).await?,
                    Method::Get | Method::Head | Method::Other => self.shared.handler.handle(&request).await,
                }
            };
            let last = !request.stays || reply.ends_connection(&request) || self.shared.stop.is_cancelled();
            reply.write_head(&request, last, &mut self.output);
            if request.method != Method::Head {
                match reply.body {
                    Body::Empty => {}
                    Body::Bytes(bytes) => self.output.extend_from_slice(&bytes),
                    body @ (Body::File { .. } | Body::Read { .. }) => {
                        let head = mem::take(&mut self.output);
                        let pool = self.shared.handler.pool().clone();
                        // Boxed, so that idle connections have no room for it.
                        Box::pin(self.pump(Pump::new(head, body, request.takes_chunks, pool))).await?;
                    }
                }
            }
            if last {
                self.flush().await?;
                return self.linger().await;
            }
            if self.output.len() >= GATHER {
                self.flush().await?;
            }
        }
    }

    /// Takes a request's content, unless that is not wanted: then the connection ends with the answer.
    async fn take(&mut self, request: &mut Request) -> io::Result<Reply> {
        let reply = match self.shared.handler.admit(request).await {
            Err(reply) => reply,
            Ok(intake) => {
                let content = self.content(intake.length()).await?;
                request.stays = request.stays_after_content;
                intake.take(content).await
            }
        };
        self.shared.handler.count(request, &reply);
        Ok(reply)
    }

    /// Receives so many bytes of content.
    async fn content(&mut self, length: usize) -> io::Result<Vec<u8>> {
        self.flush().await?;
        let mut content = Vec::with_capacity(length);
        let first = self.input.len().min(length);
        content.extend(self.input.drain(..first));
        let mut watch = Watch::new(self.shared.limits.stall_timeout);
        while content.len() < length {
            let left = length - content.len();
            let mut room = (&mut content).limit(left);
            let received = watch.limit(self.socket.read_buf(&mut room)).await?;
            if received == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            watch.took(received as u64);
            self.activity.note();
        }
        Ok(content)
    }

    /// Takes the next request from what was received, or waits for it. Before it waits, it sends what there is to send.
    async fn receive(
        &mut self,
        mut stopped: Pin<&mut WaitForCancellationFuture<'_>>,
    ) -> io::Result<Received> {
        let mut due = None;
        loop {
            if !self.input.is_empty() {
                match Request::parse(&self.input) {
                    Ok(Some((request, length))) => {
                        self.input.drain(..length);
                        return Ok(Received::Request(request));
                    }
                    Ok(None) => {}
                    Err(status) => return Ok(Received::Nonsense(status)),
                }
            }
            if !self.output.is_empty() {
                self.flush().await?;
                self.heat.answered();
            }
            let soon = self.soon().await?;
            if soon > 0 {
                continue;
            }
            let due = *due.get_or_insert_with(|| Instant::now() + self.shared.limits.header_timeout);
            let received = tokio::select! {
                biased;
                received = read(&mut self.socket, &mut self.input) => received?,
                () = stopped.as_mut(), if self.input.is_empty() => return Ok(Received::End),
                () = self.timer.as_mut() => {
                    if Instant::now() >= due {
                        let silent = self.input.is_empty();
                        return Ok(if silent { Received::End } else { Received::Nonsense(Status::RequestTimeout) });
                    }
                    self.timer.as_mut().reset(due);
                    continue;
                }
            };
            if received == 0 {
                return Ok(Received::End);
            }
            self.heat.came();
            self.activity.note();
        }
    }

    /// Looks for what a client sends at once. Gives the number of bytes that came; where that is none, more is known by who waits.
    async fn soon(&mut self) -> io::Result<usize> {
        loop {
            if let Some(received) = read(&mut self.socket, &mut self.input).now_or_never() {
                let received = received?;
                if received > 0 {
                    self.heat.came();
                    self.activity.note();
                }
                return Ok(received);
            }
            if !self.heat.looks_again() {
                return Ok(0);
            }
            // The runtime looks at all sockets meanwhile.
            yield_now().await;
        }
    }

    /// Says what is wrong, and ends.
    async fn refuse(&mut self, status: Status) -> io::Result<()> {
        let reply = reply::refusal(status, "this is no request that can be answered here");
        self.shared.handler.count_nonsense(status);
        reply.write_head(&Request::none(), true, &mut self.output);
        if let Body::Bytes(text) = &reply.body {
            self.output.extend_from_slice(text);
        }
        self.flush().await?;
        self.linger().await
    }

    /// Ends the connection so that the client gets all that was sent: a socket closed while bytes wait in it takes back what
    /// the client has not read.
    async fn linger(&mut self) -> io::Result<()> {
        self.socket.shutdown().await?;
        let until = Instant::now() + LINGER;
        let mut left = LINGER_BYTES;
        while left > 0 {
            self.input.clear();
            match timeout_at(until, read(&mut self.socket, &mut self.input)).await {
                Ok(Ok(count)) if count > 0 => left = left.saturating_sub(count),
                _ => break,
            }
        }
        Ok(())
    }

    /// Sends all answers that wait.
    async fn flush(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            return Ok(());
        }
        let output = mem::take(&mut self.output);
        let mut watch = Watch::new(self.shared.limits.stall_timeout);
        let mut at = 0;
        while at < output.len() {
            at += self.write(&output[at..], &mut watch).await?;
        }
        if let Socket::Tls(stream) = &mut self.socket {
            stream.flush().await?;
        }
        // Kept for the next answers, unless it has grown.
        if output.capacity() <= READ {
            self.output = output;
            self.output.clear();
        }
        Ok(())
    }

    /// Sends some bytes; waits until the client takes some.
    async fn write(&mut self, bytes: &[u8], watch: &mut Watch) -> io::Result<usize> {
        let mut writing = poll_fn(|context| Pin::new(&mut self.socket).poll_write(context, bytes));
        let written = match (&mut writing).now_or_never() {
            Some(written) => written?,
            None => watch.limit(writing).await?,
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        watch.took(written as u64);
        self.activity.note();
        self.shared.metrics.sent(written as u64);
        Ok(written)
    }

    /// Sends a large body.
    async fn pump(&mut self, mut pump: Pump) -> io::Result<()> {
        let mut watch = Watch::new(self.shared.limits.stall_timeout);
        let Some(socket) = self.socket.plain() else { return self.pump_encrypted(pump, watch).await };
        let socket = Arc::new(socket?);
        loop {
            let still;
            let before = pump.sent();
            (pump, still) = {
                let (socket, activity) = (Arc::clone(&socket), Arc::clone(&self.activity));
                let metrics = Arc::clone(&self.shared.metrics);
                let running = spawn_blocking(move || {
                    let still = pump.run(&socket, &activity, &metrics);
                    (pump, still)
                });
                running.await.map_err(io::Error::other)?
            };
            watch.took(pump.sent() - before);
            match still? {
                Still::Finished => return Ok(()),
                Still::Held => {}
            }
            // Only what is pending already, or a piece of a file: nothing is read here that could take long.
            let waiting = self.socket.write_when_ready(|socket| pump.send_some(socket));
            let taken = watch.limit(waiting).await?;
            watch.took(taken as u64);
            self.activity.note();
            self.shared.metrics.sent(taken as u64);
        }
    }

    /// Sends a large body through the encryption.
    async fn pump_encrypted(&mut self, mut pump: Pump, mut watch: Watch) -> io::Result<()> {
        loop {
            let filled;
            (pump, filled) = spawn_blocking(move || {
                let filled = pump.fill();
                (pump, filled)
            })
            .await
            .map_err(io::Error::other)?;
            if !filled? {
                return self.socket.flush().await;
            }
            while !pump.pending().is_empty() {
                let taken = self.write(pump.pending(), &mut watch).await?;
                pump.advance(taken);
            }
        }
    }
}

/// Receives some bytes, appended to `input`; none at the end.
async fn read(socket: &mut Socket, input: &mut Vec<u8>) -> io::Result<usize> {
    poll_fn(|context| {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        match Pin::new(&mut *socket).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) => {
                debug_assert!(input.len() <= MAX_HEAD);
                input.extend_from_slice(buffer.filled());
                Poll::Ready(Ok(buffer.filled().len()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Sees to it that a client takes [`LEAST`] bytes within a time, while there is something for it to take.
struct Watch {
    allowed: Duration,
    until: Option<Instant>,
    taken: u64,
}

impl Watch {
    fn new(allowed: Duration) -> Self {
        Self { allowed, until: None, taken: 0 }
    }

    /// Notes that the client took something.
    fn took(&mut self, bytes: u64) {
        self.taken += bytes;
        if self.taken >= LEAST {
            self.taken = 0;
            self.until = None;
        }
    }

    /// Waits for the client, but not longer than is allowed.
    async fn limit<T>(&mut self, waiting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        let until = *self.until.get_or_insert_with(|| Instant::now() + self.allowed);
        timeout_at(until, waiting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}
