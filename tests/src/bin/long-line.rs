//! A long, bad line: passes Ethernet frames between two network devices of its own making, each late by the same time, and loses some, where
//! the kernel cannot simulate that.
//!
//! The devices are made in the network namespace it runs in; one of them may be moved to another. What is passed, lost, and dropped for
//! want of room is counted in a file.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use hauberk_tests::simulated::Random;
use rustix::ioctl::{Opcode, Setter, ioctl, opcode};

/// The longest frame of a device as it is made: 1,500 bytes and the Ethernet header.
const LONGEST_FRAME: usize = 1514;
/// Frames that are under way in one direction at most: with 200 ms it is a line of 30 MB in a second.
const UNDER_WAY: usize = 4096;
/// How often the counts are written down.
const COUNTED: Duration = Duration::from_millis(200);
/// How long is waited for a device that is down for now.
const DOWN: Duration = Duration::from_millis(20);

/// Pass Ethernet frames on, late, and lose some
#[derive(Debug, Parser)]
struct Options {
    /// The names of the two devices
    #[arg(long, num_args = 2, required = true)]
    devices: Vec<String>,

    /// How late everything comes, each way
    #[arg(long)]
    delay_ms: u64,

    /// So many of a hundred frames are lost, each way
    #[arg(long, value_parser = clap::value_parser!(u64).range(0..=100))]
    loss_percent: u64,

    /// What decides which
    #[arg(long)]
    seed: u64,

    /// Where to write how many frames were passed on, lost, and dropped for want of room
    #[arg(long)]
    counts: PathBuf,
}

/// What became of frames.
#[derive(Debug, Default)]
struct Counts {
    passed: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
}

/// A frame, and when it is to arrive.
type UnderWay = (Instant, Vec<u8>);

fn main() -> Result<()> {
    let options = Options::parse();
    let [near, far] = &options.devices[..] else { bail!("there are two devices") };
    let (near, far) = (Arc::new(open_tap(near)?), Arc::new(open_tap(far)?));
    let counts = Arc::new(Counts::default());
    let delay = Duration::from_millis(options.delay_ms);
    for (from, to, way) in [(&near, &far, 0), (&far, &near, 1)] {
        let (sender, receiver) = sync_channel(UNDER_WAY);
        let (from, to, counts) = (Arc::clone(from), Arc::clone(to), Arc::clone(&counts));
        let (random, loss) =
            (Random::new(options.seed.wrapping_mul(2).wrapping_add(way)), options.loss_percent);
        let read_counts = Arc::clone(&counts);
        thread::spawn(move || fatal(take(&from, &sender, delay, loss, random, &read_counts)));
        thread::spawn(move || fatal(deliver(&to, &receiver, &counts)));
    }
    write_counts(&options.counts, &counts)?;
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    loop {
        thread::sleep(COUNTED);
        write_counts(&options.counts, &counts)?;
    }
}

/// Ends the program when one of its ways does.
fn fatal(way: Result<()>) {
    if let Err(error) = way {
        eprintln!("the line is broken: {error:#}");
        std::process::exit(1);
    }
}

/// Takes frames from a device, loses some, and sends the others on their way.
fn take(
    from: &File,
    way: &SyncSender<UnderWay>,
    delay: Duration,
    loss_percent: u64,
    mut random: Random,
    counts: &Counts,
) -> Result<()> {
    let mut frame = [0; LONGEST_FRAME];
    let mut from = from;
    loop {
        let length = match from.read(&mut frame) {
            Ok(length) => length,
            Err(error) if is_down(&error) => {
                thread::sleep(DOWN);
                continue;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("reading a frame"),
        };
        if random.below(100) < loss_percent {
            counts.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        match way.try_send((Instant::now() + delay, frame[..length].to_vec())) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
            }
            Err(TrySendError::Disconnected(_)) => bail!("the other end is gone"),
        }
    }
}

/// Delivers frames when they are due. They all take the same time, so that none overtakes another.
fn deliver(to: &File, way: &Receiver<UnderWay>, counts: &Counts) -> Result<()> {
    let mut to = to;
    for (due, frame) in way {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        match to.write(&frame) {
            Ok(_) => counts.passed.fetch_add(1, Ordering::Relaxed),
            // As on a wire that is not plugged in, or a frame that nobody can read.
            Err(error) if is_down(&error) || error.kind() == ErrorKind::InvalidInput => {
                counts.dropped.fetch_add(1, Ordering::Relaxed)
            }
            Err(error) => return Err(error).context("writing a frame"),
        };
    }
    bail!("the other end is gone")
}

/// Tells whether an error of a device means that it is not up.
fn is_down(error: &std::io::Error) -> bool {
    [rustix::io::Errno::IO, rustix::io::Errno::BADFD]
        .iter()
        .any(|down| error.raw_os_error() == Some(down.raw_os_error()))
}

/// Writes the counts for others to read, whole at any moment.
fn write_counts(path: &Path, counts: &Counts) -> Result<()> {
    let draft = path.with_extension("draft");
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let text = format!("{} {} {}\n", count(&counts.passed), count(&counts.lost), count(&counts.dropped));
    fs::write(&draft, text).with_context(|| format!("writing {}", draft.display()))?;
    fs::rename(&draft, path).with_context(|| format!("writing {}", path.display()))
}

/// What `/dev/net/tun` is told about the device to make: `struct ifreq`.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

/// Makes an Ethernet device that is there as long as the file is open.
fn open_tap(name: &str) -> Result<File> {
    /// `TUNSETIFF`.
    const SET: Opcode = opcode::write::<i32>(b'T', 202);
    /// `IFF_TAP`: frames and not packets; `IFF_NO_PI`: nothing in front of them.
    const FRAMES: i16 = 0x0002 | 0x1000;
    let mut request = Request { name: [0; 16], flags: FRAMES, rest: [0; 22] };
    // The last byte stays zero.
    let room = request.name.get_mut(..name.len()).filter(|room| room.len() < 16);
    room.with_context(|| format!("{name} is too long for a device"))?.copy_from_slice(name.as_bytes());
    let file = File::options().read(true).write(true).open("/dev/net/tun").context("opening /dev/net/tun")?;
    #[expect(unsafe_code, reason = "the kernel is told about the device by a structure of its own")]
    // SAFETY: TUNSETIFF reads a `struct ifreq`, which `Request` has the layout of, and keeps no pointer to it.
    let made = unsafe { ioctl(&file, Setter::<SET, Request>::new(request)) };
    made.with_context(|| format!("making the device {name}"))?;
    Ok(file)
}
