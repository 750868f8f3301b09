//! Which worker built what lately, so that others can have it from there and not all from the server.

use std::collections::{HashMap, VecDeque};

use hauberk_database::WorkerId;
use hauberk_database::dispatch::KnownPath;
use hauberk_protocol::proto::Assign;
use hauberk_store::StorePath;

use crate::sources::Sources;

/// Outputs whose worker is remembered: half a kilobyte each at most.
const REMEMBERED: usize = 65_536;
/// What is smaller is not worth another connection, in bytes of nar.
const WORTH: i64 = 256 * 1024;

/// Which worker built what lately.
#[derive(Debug, Default)]
pub(crate) struct Origins {
    workers: HashMap<StorePath, WorkerId>,
    /// The oldest first.
    order: VecDeque<StorePath>,
}

impl Origins {
    /// A worker built these outputs.
    pub(crate) fn note(&mut self, worker: WorkerId, outputs: &[KnownPath]) {
        for output in outputs.iter().filter(|output| output.nar_size >= WORTH) {
            if self.workers.insert(output.path.clone(), worker).is_none() {
                self.order.push_back(output.path.clone());
            }
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.workers.remove(&oldest);
            }
        }
    }

    /// Says in an assignment where its inputs may be had besides here: from those who built them, if the server itself can reach them.
    pub(crate) fn name(&self, assign: &mut Assign, sources: &Sources) {
        if self.workers.is_empty() {
            return;
        }
        for input in &mut assign.inputs {
            let worker = StorePath::parse(&input.path).ok().and_then(|path| self.workers.get(&path));
            let Some(url) = worker.and_then(|worker| sources.reached(*worker)) else { continue };
            let place = assign.sources.iter().position(|known| *known == url).unwrap_or_else(|| {
                assign.sources.push(url);
                assign.sources.len() - 1
            });
            input.sources.extend(u32::try_from(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use hauberk_protocol::proto::Input;

    use super::*;
    use crate::sources::Source;

    fn path(number: usize) -> StorePath {
        StorePath::parse(&format!("/nix/store/{number:032}-x")).unwrap()
    }

    fn output(number: usize, nar_size: i64) -> KnownPath {
        KnownPath { path: path(number), nar_hash: vec![0; 32], nar_size }
    }

    #[test]
    fn inputs_name_those_who_built_them_and_can_be_reached() {
        let sources = Sources::default();
        let source = |url: Option<&str>| Source {
            worker: "w".to_owned(),
            publish_url: url.map(str::to_owned),
            signing_key: None,
        };
        let workers = [1, 2, 3].map(WorkerId::new);
        sources.put(workers[0], source(Some("http://one")));
        sources.put(workers[1], source(None));
        let mut origins = Origins::default();
        origins.note(workers[0], &[output(1, WORTH), output(2, WORTH - 1), output(3, WORTH)]);
        origins.note(workers[1], &[output(4, WORTH)]);
        origins.note(workers[2], &[output(5, WORTH)]);
        let inputs = (0..6).map(|number| Input { path: path(number).to_string(), ..Input::default() });
        let mut assign = Assign { inputs: inputs.collect(), ..Assign::default() };
        origins.name(&mut assign, &sources);
        assert_eq!(assign.sources, ["http://one"]);
        let named: Vec<_> = assign.inputs.iter().map(|input| input.sources.as_slice()).collect();
        assert_eq!(named, [&[][..], &[0], &[], &[0], &[], &[]]);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut origins = Origins::default();
        for number in 0..=REMEMBERED {
            origins.note(WorkerId::new(1), &[output(number, WORTH)]);
        }
        assert_eq!((origins.workers.len(), origins.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!origins.workers.contains_key(&path(0)));
    }
}
