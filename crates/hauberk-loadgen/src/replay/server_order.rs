//! The order that the server links.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use hauberk_order::{
    Capabilities, Ids, Lane, Moment, Order, PathStep, Placement, Policy, Requirement, Urgency, Waiting,
    remaining_paths,
};
use hauberk_store::StoreDirectory;

use super::{Scheduler, Workload};

/// The identifiers of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Replay;

impl Ids for Replay {
    type Build = usize;
    type Lane = usize;
    type Specification = usize;
    type Session = usize;
}

/// The order that the server links, with estimates as the register records them: at each publication, the longest path of what
/// that evaluation wants, or the one known before if that is longer.
pub(crate) struct ServerOrder {
    order: Order<Replay>,
    capabilities: Capabilities,
    paths: Vec<Duration>,
    priorities: HashMap<usize, Urgency>,
    lanes: HashMap<(usize, String), usize>,
    /// For each machine, its slots and how many are free.
    machines: Vec<(u64, u64)>,
    given: HashMap<usize, usize>,
}

impl ServerOrder {
    /// Makes one for machines of so many slots each.
    pub(crate) fn new(policy: Policy, machines: impl IntoIterator<Item = u64>) -> Self {
        let capabilities = Capabilities {
            store_directory: StoreDirectory::guix(),
            systems: ["x86_64-linux", "i686-linux"].map(str::to_owned).into(),
            features: BTreeSet::new(),
            mandatory_features: BTreeSet::new(),
        };
        let machines: Vec<_> = machines.into_iter().map(|slots| (slots, slots)).collect();
        let mut order = Order::new(policy);
        for (session, (slots, free)) in machines.iter().enumerate() {
            order.set_seat(session, &capabilities, *free, *slots);
        }
        Self {
            order,
            capabilities,
            paths: Vec::new(),
            priorities: HashMap::new(),
            lanes: HashMap::new(),
            machines,
            given: HashMap::new(),
        }
    }

    /// Gives a specification its shares and the urgency of its builds.
    pub(crate) fn set_specification(&mut self, specification: usize, shares: u32, urgency: Urgency) {
        self.order.ledger_mut().set_shares(specification, shares);
        self.priorities.insert(specification, urgency);
    }

    fn lane(&mut self, workload: &Workload, build: usize) -> usize {
        let specification = workload.specification_of(build);
        let system = &workload.builds[build].system;
        if let Some(lane) = self.lanes.get(&(specification, system.clone())) {
            return *lane;
        }
        let id = self.lanes.len();
        let requirement = Requirement {
            store_directory: StoreDirectory::guix(),
            system: system.clone(),
            features: BTreeSet::new(),
        };
        self.order.set_lane(&Lane { id, specification, requirement });
        self.lanes.insert((specification, system.clone()), id);
        id
    }
}

impl Scheduler for ServerOrder {
    fn published(&mut self, workload: &Workload, evaluation: usize, _: Moment) {
        self.paths.resize(workload.builds.len(), Duration::ZERO);
        let wanted = &workload.evaluations[evaluation].builds;
        let places: HashMap<_, _> = wanted.iter().enumerate().map(|(place, build)| (*build, place)).collect();
        let estimates: Vec<_> = wanted.iter().map(|build| workload.builds[*build].estimate).collect();
        let needed: Vec<Vec<_>> = wanted
            .iter()
            .map(|build| workload.builds[*build].dependencies.iter().map(|needed| places[needed]).collect())
            .collect();
        // What the program carries has no cycle: each derivation was read after what it needs.
        let Ok(paths) = remaining_paths(&estimates, |place| &needed[place]) else { return };
        for (build, path) in wanted.iter().zip(paths) {
            self.paths[*build] = self.paths[*build].max(path);
        }
    }

    fn ready(&mut self, workload: &Workload, build: usize, now: Moment) {
        let lane = self.lane(workload, build);
        let specification = workload.specification_of(build);
        let urgency = self.priorities.get(&specification).copied().unwrap_or(Urgency::LAST);
        let (path, expected) = (PathStep::from(self.paths[build]), workload.builds[build].estimate);
        self.order.add(lane, Waiting { build, urgency, path, expected, since: now });
    }

    fn ended(&mut self, _: &Workload, build: usize, now: Moment) {
        self.order.ended(build, now);
        if let Some(session) = self.given.remove(&build) {
            let (slots, free) = &mut self.machines[session];
            *free += 1;
            self.order.set_seat(session, &self.capabilities, *free, *slots);
        }
    }

    fn next(&mut self, _: &Workload, now: Moment) -> Option<usize> {
        let Placement { build, session, .. } = self.order.next(now)?;
        self.order.granted(build);
        self.machines[session].1 -= 1;
        self.given.insert(build, session);
        Some(build)
    }
}
