//! What the machine must have to spare before work is taken, and what it lacks of that.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::health::{free_bytes, memory_available, pressure, read_pressure};

/// What a machine must have to spare. Zero and `None` ask for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Bytes that must be free on the file systems of the store, of the directory that builders run in, and of the spool.
    pub disk_bytes: u64,
    /// Bytes of memory that must be available.
    pub memory_bytes: u64,
    /// Pressure that is still borne.
    pub pressure: PressureLimits,
}

/// The largest pressure (`some avg10` of `/proc/pressure`) at which work is taken, in hundredths of a percent of the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PressureLimits {
    /// Of tasks that wait for a processor.
    pub cpu: Option<u32>,
    /// Of tasks that wait for memory.
    pub memory: Option<u32>,
    /// Of tasks that wait for input and output.
    pub io: Option<u32>,
}

impl PressureLimits {
    fn all(&self) -> [(Lack, &'static str, Option<u32>); 3] {
        [
            (Lack::CpuPressure, "cpu", self.cpu),
            (Lack::MemoryPressure, "memory", self.memory),
            (Lack::IoPressure, "io", self.io),
        ]
    }
}

/// A kind of thing that a machine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lack {
    /// Space where the store is.
    StoreDisk,
    /// Space where builders run.
    BuildDisk,
    /// Space where results and logs wait.
    SpoolDisk,
    /// Memory.
    Memory,
    /// Processors that have time.
    CpuPressure,
    /// Memory that need not be fought for.
    MemoryPressure,
    /// Disks that have time.
    IoPressure,
}

impl Lack {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::StoreDisk,
        Self::BuildDisk,
        Self::SpoolDisk,
        Self::Memory,
        Self::CpuPressure,
        Self::MemoryPressure,
        Self::IoPressure,
    ];

    /// As it stands in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StoreDisk => "store_disk",
            Self::BuildDisk => "build_disk",
            Self::SpoolDisk => "spool_disk",
            Self::Memory => "memory",
            Self::CpuPressure => "cpu_pressure",
            Self::MemoryPressure => "memory_pressure",
            Self::IoPressure => "io_pressure",
        }
    }
}

/// What a machine lacks, each with a few words for people; empty: nothing.
pub type Shortage = BTreeMap<Lack, String>;

/// Says in a line what a machine lacks; empty: nothing. Disks that are one are told once.
pub(crate) fn in_words(shortage: &Shortage) -> String {
    let mut words: Vec<&str> = Vec::new();
    for said in shortage.values() {
        if !words.contains(&said.as_str()) {
            words.push(said);
        }
    }
    words.join("; ")
}

/// The directories whose file systems count.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) store: PathBuf,
    pub(super) build: PathBuf,
    pub(super) spool: PathBuf,
}

/// A file system, by what is on it.
#[derive(Debug, PartialEq, Eq)]
struct Disk {
    holds: Vec<(Lack, &'static str)>,
    free: u64,
}

/// What was seen of a machine at one moment; what cannot be read is not there.
#[derive(Debug, Default)]
pub(super) struct Seen {
    disks: Vec<Disk>,
    memory: Option<u64>,
    pressure: BTreeMap<Lack, u32>,
}

impl Reserve {
    /// Whether nothing is asked for.
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Finds out whether the kernel tells the pressures that are limited.
    ///
    /// # Errors
    /// Which of them it does not tell, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, io::Error)> {
        for (_, resource, limit) in self.pressure.all() {
            if limit.is_some() {
                read_pressure(resource).map_err(|error| (resource, error))?;
            }
        }
        Ok(())
    }

    /// Looks at the machine.
    pub(super) fn look(&self, places: &Places) -> Seen {
        let mut disks: Vec<(u64, Disk)> = Vec::new();
        let named = [
            (Lack::StoreDisk, "the store", &places.store),
            (Lack::BuildDisk, "the build directory", &places.build),
            (Lack::SpoolDisk, "the spool", &places.spool),
        ];
        for (lack, name, path) in named {
            let (Some(free), Some(device)) = (free_bytes(path), device(path)) else { continue };
            match disks.iter_mut().find(|(known, _)| *known == device) {
                Some((_, disk)) => disk.holds.push((lack, name)),
                None => disks.push((device, Disk { holds: vec![(lack, name)], free })),
            }
        }
        let limited = self.pressure.all().into_iter().filter(|(.., limit)| limit.is_some());
        Seen {
            disks: disks.into_iter().map(|(_, disk)| disk).collect(),
            memory: memory_available(),
            pressure: limited.filter_map(|(lack, resource, _)| Some((lack, pressure(resource)?))).collect(),
        }
    }

    /// Tells what is lacking. What was lacking `before` must be there with a tenth to spare, or little would be gained by its coming and going.
    pub(super) fn judge(&self, seen: &Seen, before: &Shortage) -> Shortage {
        let mut shortage = Shortage::new();
        for disk in &seen.disks {
            let was_low = disk.holds.iter().any(|(lack, _)| before.contains_key(lack));
            if disk.free < with_margin(self.disk_bytes, was_low) {
                let names: Vec<_> = disk.holds.iter().map(|(_, name)| *name).collect();
                let words = format!(
                    "the disk of {} has {} free, less than {}",
                    names.join(" and "),
                    size(disk.free),
                    size(with_margin(self.disk_bytes, was_low))
                );
                shortage.extend(disk.holds.iter().map(|(lack, _)| (*lack, words.clone())));
            }
        }
        if let Some(available) = seen.memory {
            let wanted = with_margin(self.memory_bytes, before.contains_key(&Lack::Memory));
            if available < wanted {
                let words =
                    format!("{} of memory are available, less than {}", size(available), size(wanted));
                shortage.insert(Lack::Memory, words);
            }
        }
        for (lack, resource, limit) in self.pressure.all() {
            let (Some(limit), Some(now)) = (limit, seen.pressure.get(&lack)) else { continue };
            let borne = if before.contains_key(&lack) { limit - limit / 10 } else { limit };
            if *now > borne {
                let words =
                    format!("the {resource} pressure is {} %, more than {} %", percent(*now), percent(borne));
                shortage.insert(lack, words);
            }
        }
        shortage
    }
}

fn with_margin(bytes: u64, margin: bool) -> u64 {
    if margin { bytes.saturating_add(bytes / 10) } else { bytes }
}

fn device(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.dev())
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    const GIB: u64 = 1 << 30;
    match bytes {
        GIB.. => format!("{:.1} GiB", bytes as f64 / GIB as f64),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn percent(hundredths: u32) -> String {
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn disk(holds: &[(Lack, &'static str)], free: u64) -> Disk {
        Disk { holds: holds.to_vec(), free }
    }

    fn lacks(shortage: &Shortage) -> Vec<Lack> {
        shortage.keys().copied().collect()
    }

    #[test]
    fn a_disk_is_low_below_the_minimum_and_well_again_a_tenth_above_it() {
        let reserve = Reserve { disk_bytes: 5 * GIB, ..Reserve::default() };
        let seen =
            |free| Seen { disks: vec![disk(&[(Lack::StoreDisk, "the store")], free)], ..Seen::default() };
        let none = Shortage::new();
        assert_eq!(reserve.judge(&seen(5 * GIB), &none), none);
        let low = reserve.judge(&seen(5 * GIB - 1), &none);
        assert_eq!(in_words(&low), "the disk of the store has 5.0 GiB free, less than 5.0 GiB");
        assert_eq!(lacks(&reserve.judge(&seen(5 * GIB), &low)), [Lack::StoreDisk]);
        assert_eq!(reserve.judge(&seen(5 * GIB + GIB / 2), &low), none);
        assert_eq!(Reserve::default().judge(&seen(0), &low), none);
    }

    #[test]
    fn a_disk_with_everything_on_it_is_told_once() {
        let reserve = Reserve { disk_bytes: 64 << 20, ..Reserve::default() };
        let holds = [(Lack::StoreDisk, "the store"), (Lack::SpoolDisk, "the spool")];
        let seen = Seen { disks: vec![disk(&holds, 3 << 20)], ..Seen::default() };
        let low = reserve.judge(&seen, &Shortage::new());
        assert_eq!(lacks(&low), [Lack::StoreDisk, Lack::SpoolDisk]);
        assert_eq!(in_words(&low), "the disk of the store and the spool has 3 MiB free, less than 64 MiB");
    }

    #[test]
    fn memory_and_pressure_count_if_they_are_limited() {
        let limits = PressureLimits { cpu: Some(5000), ..PressureLimits::default() };
        let reserve = Reserve { memory_bytes: GIB, pressure: limits, ..Reserve::default() };
        let seen = |memory, cpu| Seen {
            memory: Some(memory),
            pressure: BTreeMap::from([(Lack::CpuPressure, cpu), (Lack::IoPressure, 10_000)]),
            ..Seen::default()
        };
        let none = Shortage::new();
        assert_eq!(reserve.judge(&seen(GIB, 5000), &none), none);
        let low = reserve.judge(&seen(GIB / 2, 5001), &none);
        assert_eq!(
            in_words(&low),
            "512 MiB of memory are available, less than 1.0 GiB; the cpu pressure is 50.01 %, more than 50.00 %"
        );
        assert_eq!(lacks(&reserve.judge(&seen(2 * GIB, 4501), &low)), [Lack::CpuPressure]);
        assert_eq!(reserve.judge(&seen(2 * GIB, 4500), &low), none);
        // What the kernel does not tell stops nobody in the midst of work; at the start it is an error.
        assert_eq!(reserve.judge(&Seen::default(), &none), none);
    }

    #[test]
    fn the_file_systems_of_this_machine_are_told_apart() {
        let places = Places { store: "/".into(), build: "/".into(), spool: "/proc".into() };
        let seen = Reserve { disk_bytes: u64::MAX, ..Reserve::default() }.look(&places);
        assert_eq!(seen.disks.len(), 2);
        assert_eq!(seen.disks[0].holds.len(), 2);
        assert!(seen.disks[0].free > 0 && seen.memory > Some(0));
    }
}
