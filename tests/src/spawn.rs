//! Starting children from a thread that never ends.
//!
//! A parent-death signal is sent when the *thread* that made the child ends. Test threads and the blocking threads of
//! an async runtime come and go, so all children are made by one thread that stays.

use std::{
    io,
    process::{Child, Command},
    sync::{
        OnceLock,
        mpsc::{Sender, channel},
    },
};

type Request = (Command, Sender<io::Result<Child>>);

/// Starts `command` from the thread that stays.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Request>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, receiver) = channel::<Request>();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || {
                for (mut command, answer) in receiver {
                    let _ = answer.send(command.spawn());
                }
            })
            .expect("a process can have a second thread");
        requests
    });
    let (answer, child) = channel();
    spawner
        .send((command, answer))
        .map_err(|_| io::Error::other("the thread that starts children has ended"))?;
    child.recv().map_err(|_| io::Error::other("the thread that starts children has ended"))?
}
