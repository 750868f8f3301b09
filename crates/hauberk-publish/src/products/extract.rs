//! Taking products out of the nars of a cache.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Write},
    mem,
};

use hauberk_store::{
    NarInfo, StorePath,
    nar::{Decoder, Event, Limits as NarLimits},
};

use super::{
    directory::Products,
    pattern::{Pattern, matches},
    product_file::{FinishedProduct, ProductFile},
    tar::Tar,
};
use crate::cache::{CacheError, CacheReader};

/// Most links that lead from a name to a file.
const MOST_LINKS: u8 = 16;
/// Most nars that are read for an output: its own, and those that its links lead to, each perhaps several times.
const MOST_READS: usize = 32;

/// Bounds on what is taken out of an output.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most bytes of a product.
    pub size: u64,
    /// Most products.
    pub files: usize,
}

impl Default for Limits {
    /// Gives 64 GiB and 200 products.
    fn default() -> Self {
        Self { size: 64 << 30, files: 200 }
    }
}

/// What was taken out of an output, and what was not.
#[derive(Debug, Default)]
pub struct Extracted {
    /// The products.
    pub found: Vec<Found>,
    /// What was wanted and is not among them, by its place; each at most once, and only what nothing was found of.
    pub unmet: BTreeMap<usize, Unmet>,
    /// What was found and not taken, by the place of what wanted it.
    pub refused: Vec<(usize, Refused)>,
}

/// A file that was taken out, or a directory as an archive.
#[derive(Debug)]
pub struct Found {
    /// The file; not kept yet.
    pub file: FinishedProduct,
    /// Whether it is the archive of a directory.
    pub directory: bool,
    /// Which of those wanted it is, by their places, and the path that each has it under; empty for the whole output.
    pub names: Vec<(usize, String)>,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// Nothing in the output has such a name.
    Missing,
    /// What there is was not taken.
    Refused(Refused),
}

/// Why something was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is larger than allowed.
    TooLarge {
        /// Its path.
        path: String,
        /// The bytes allowed.
        limit: u64,
    },
    /// There are more than allowed.
    TooMany {
        /// The number allowed.
        limit: usize,
    },
    /// It is a link that leads to where nothing is taken from.
    Link {
        /// Its path.
        path: String,
        /// Where it leads, or what is wrong with it.
        reason: String,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { path, limit } if path.is_empty() => {
                write!(formatter, "the output is larger than {limit} bytes")
            }
            Self::TooLarge { path, limit } => write!(formatter, "`{path}` is larger than {limit} bytes"),
            Self::TooMany { limit } => write!(formatter, "more than {limit} files have such names"),
            Self::Link { path, reason } if path.is_empty() => {
                write!(formatter, "the output is a symbolic link {reason}")
            }
            Self::Link { path, reason } => write!(formatter, "`{path}` is a symbolic link {reason}"),
        }
    }
}

/// Why an output could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The cache failed.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The cache does not have it.
    #[error("the cache does not have {0}")]
    Absent(StorePath),
    /// Its nar is not what the cache says, or its products could not be written.
    #[error("cannot take products out of {path}")]
    Read {
        /// The item.
        path: StorePath,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// Takes the files that `wanted` mean out of `output`, whose nar the cache has: in one reading, during which all of the nar is checked. What
/// is found is in temporary files; memory holds no more than names.
///
/// A directory that is meant becomes an archive. A symbolic link that is meant, or that stands where a directory is, is followed as long as it
/// leads into the output or into something that the output refers to and that the cache has; those inside archives stay links.
///
/// It is given up when `go_on` says false, which it is asked now and then.
///
/// # Errors
/// [`ExtractError`]; nothing of the output is to be believed then.
pub fn extract(
    cache: &CacheReader,
    products: &Products,
    output: &StorePath,
    wanted: &[Pattern],
    limits: Limits,
    go_on: &dyn Fn() -> bool,
) -> Result<Extracted, ExtractError> {
    let claims = wanted.iter().enumerate().map(|(place, pattern)| Claim {
        wanted: place,
        components: pattern.components().to_vec(),
        shown: Vec::new(),
        hidden: 0,
        links: 0,
    });
    let mut open = BTreeMap::from([(output.clone(), claims.collect::<Vec<_>>())]);
    let mut extracted = Extracted::default();
    let mut reads = 0;
    while let Some((item, claims)) = open.pop_first() {
        reads += 1;
        let narinfo = match cache.narinfo(&item.hash())? {
            Some(narinfo) if narinfo.store_path == item => narinfo,
            _ if item == *output => return Err(ExtractError::Absent(item)),
            _ => {
                for claim in claims {
                    claim.refuse(&mut extracted, format!("to {item}, which is not in the cache"));
                }
                continue;
            }
        };
        if reads > MOST_READS {
            for claim in claims {
                claim.refuse(&mut extracted, "that leads on too often".to_owned());
            }
            continue;
        }
        let room = limits.files.saturating_sub(extracted.found.len());
        let walk = Walk::new(products, &item, claims, Limits { files: room, ..limits }, limits.files);
        let read =
            walk.read(cache, &narinfo, go_on).map_err(|source| ExtractError::Read { path: item, source })?;
        extracted.found.extend(read.found);
        extracted.refused.extend(read.refused);
        for (claim, at, target) in read.links {
            match follow(&narinfo, &claim, &at, &target) {
                Ok((to, claim)) => open.entry(to).or_default().push(claim),
                Err((claim, reason)) => claim.refuse(&mut extracted, reason),
            }
        }
    }
    let met: BTreeSet<usize> =
        extracted.found.iter().flat_map(|found| found.names.iter().map(|(place, _)| *place)).collect();
    for place in (0..wanted.len()).filter(|place| !met.contains(place)) {
        let refused = extracted.refused.iter().find(|(other, _)| *other == place);
        let unmet = refused.map_or(Unmet::Missing, |(_, refused)| Unmet::Refused(refused.clone()));
        extracted.unmet.insert(place, unmet);
    }
    Ok(extracted)
}

/// Something that is looked for in an item.
#[derive(Debug, Clone)]
struct Claim {
    /// The place of what wants it.
    wanted: usize,
    /// What its path must be like.
    components: Vec<String>,
    /// The path under which links have led here.
    shown: Vec<Vec<u8>>,
    /// So many components at the beginning are where a link leads, and not shown.
    hidden: usize,
    /// Links that have been followed.
    links: u8,
}

impl Claim {
    /// Gives the path that it has a file under whose path in the item is `path`.
    fn path(&self, path: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let rest = path.get(self.hidden..).unwrap_or_default();
        self.shown.iter().chain(rest).cloned().collect()
    }

    fn refuse(self, extracted: &mut Extracted, reason: String) {
        let path = text(&self.shown);
        extracted.refused.push((self.wanted, Refused::Link { path, reason }));
    }
}

fn text(path: &[Vec<u8>]) -> String {
    let names: Vec<_> = path.iter().map(|name| String::from_utf8_lossy(name)).collect();
    names.join("/")
}

/// Gives the item that a link leads to and what is then looked for there, or why it is not followed.
fn follow(
    item: &NarInfo,
    claim: &Claim,
    at: &[Vec<u8>],
    target: &[u8],
) -> Result<(StorePath, Claim), (Claim, String)> {
    let rest = claim.components.get(at.len()..).unwrap_or_default().to_vec();
    let mut on = Claim {
        wanted: claim.wanted,
        components: Vec::new(),
        shown: claim.path(at),
        hidden: 0,
        links: claim.links + 1,
    };
    let named = || String::from_utf8_lossy(target).into_owned();
    if on.links > MOST_LINKS {
        return Err((on, "that leads on too often".to_owned()));
    }
    // Where it leads, from the store's directory downwards.
    let own = item.store_path.base_name().as_bytes().to_vec();
    let mut place: Vec<&[u8]> = Vec::new();
    let mut path = target;
    if target.starts_with(b"/") {
        let directory = item.store_path.directory().as_str().as_bytes();
        match target.strip_prefix(directory).filter(|rest| rest.starts_with(b"/")) {
            Some(inside) => path = inside,
            None => return Err((on, format!("to {}, which is not in the store", named()))),
        }
    } else {
        place.push(&own);
        let above = at.split_last().map_or(&[] as &[_], |(_, above)| above);
        place.extend(above.iter().map(Vec::as_slice));
        // A link that is the whole item stands in the store's directory.
        if at.is_empty() {
            place.clear();
        }
    }
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if place.pop().is_none() {
                    return Err((on, format!("to {}, which is not in the store", named())));
                }
            }
            name => place.push(name),
        }
    }
    let Some((base, inside)) = place.split_first() else {
        return Err((on, "to the store itself".to_owned()));
    };
    let to = if *base == own {
        item.store_path.clone()
    } else {
        let base = String::from_utf8_lossy(base);
        match item.references.iter().find(|reference| reference.base_name() == base) {
            Some(reference) => reference.clone(),
            None => return Err((on, format!("to {}, which the output does not refer to", named()))),
        }
    };
    let mut components = Vec::with_capacity(inside.len() + rest.len());
    for name in inside {
        match std::str::from_utf8(name) {
            // A wild card in a name is a character like any other; a `?` in its place means it too, and hardly anything else.
            Ok(name) => components.push(name.replace('*', "?")),
            Err(_) => return Err((on, format!("to {}, which is no text", named()))),
        }
    }
    on.hidden = components.len();
    components.extend(rest);
    on.components = components;
    Ok((to, on))
}

/// What one reading of a nar gives.
#[derive(Default)]
struct Reading {
    found: Vec<Found>,
    refused: Vec<(usize, Refused)>,
    /// Links that stand where something is looked for: by whom, where, and their targets.
    links: Vec<(Claim, Vec<Vec<u8>>, Vec<u8>)>,
}

/// One reading of a nar.
struct Walk<'a> {
    products: &'a Products,
    claims: Vec<Claim>,
    limits: Limits,
    /// The number of products allowed in all, for messages.
    most: usize,
    /// The item's name, for archives of all of it.
    item_name: Vec<u8>,
    /// Names from the output down to the node at hand.
    path: Vec<Vec<u8>>,
    /// For each open directory, the claims whose components have been met down to it and that have more.
    open: Vec<Vec<usize>>,
    /// The claims whose components have been met down to the node that comes next.
    next: Vec<usize>,
    /// Archives that are being written, the outermost first.
    archives: Vec<Archive>,
    /// The file that is being taken out.
    file: Option<(ProductFile, Vec<usize>)>,
    begun: usize,
    reading: Reading,
}

struct Archive {
    tar: Tar<ProductFile>,
    claims: Vec<usize>,
    /// Components above its top directory.
    depth: usize,
}

impl<'a> Walk<'a> {
    fn new(
        products: &'a Products,
        item: &StorePath,
        claims: Vec<Claim>,
        limits: Limits,
        most: usize,
    ) -> Self {
        Self {
            products,
            next: (0..claims.len()).collect(),
            claims,
            limits,
            most,
            item_name: item.name().as_bytes().to_vec(),
            path: Vec::new(),
            open: Vec::new(),
            archives: Vec::new(),
            file: None,
            begun: 0,
            reading: Reading::default(),
        }
    }

    /// Reads the nar to its end, and checks it.
    fn read(
        mut self,
        cache: &CacheReader,
        narinfo: &NarInfo,
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<Reading> {
        let wrong = |reason: &'static str| io::Error::new(io::ErrorKind::InvalidData, reason);
        let place = narinfo.urls.iter().find(|place| place.url.starts_with("nar/"));
        let place = place.ok_or_else(|| wrong("its narinfo names no nar of the cache"))?;
        let mut decoder = Decoder::new(NarLimits::with_size(narinfo.nar_size));
        cache.read_nar(
            narinfo,
            place,
            |_| Ok(()),
            |mut bytes| {
                if !go_on() {
                    return Err(io::Error::other("the program ends"));
                }
                while let Some(event) = decoder.next(&mut bytes).map_err(io::Error::other)? {
                    self.apply(event)?;
                }
                Ok(())
            },
        )?;
        Ok(self.reading)
    }

    fn apply(&mut self, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Entry { name } => {
                self.path.push(name.to_vec());
                let place = self.path.len() - 1;
                let alive = self.open.last().map_or(&[] as &[usize], Vec::as_slice);
                let met = |&&claim: &&usize| {
                    self.claims[claim].components.get(place).is_some_and(|wanted| matches(wanted, name))
                };
                self.next = alive.iter().filter(met).copied().collect();
            }
            Event::File { executable, size } => {
                let name = self.archived_name();
                self.archive(size, |tar| tar.file(&name, executable, size))?;
                let (wanted, _) = self.arrived();
                self.begin_file(wanted, size)?;
            }
            Event::Contents(bytes) => {
                for archive in &mut self.archives {
                    archive.tar.contents(bytes)?;
                }
                if let Some((file, _)) = &mut self.file {
                    file.write_all(bytes)?;
                }
            }
            Event::EndFile => {
                if let Some((file, claims)) = self.file.take() {
                    self.found(file, &claims, false);
                }
                self.path.pop();
            }
            Event::Symlink { target } => {
                let name = self.archived_name();
                self.archive(0, |tar| tar.symlink(&name, target))?;
                let (wanted, through) = self.arrived();
                for claim in wanted.into_iter().chain(through) {
                    self.reading.links.push((self.claims[claim].clone(), self.path.clone(), target.to_vec()));
                }
                self.path.pop();
            }
            Event::Directory => {
                let (wanted, through) = self.arrived();
                self.begin_archive(wanted)?;
                let name = self.archived_name();
                self.archive(0, |tar| tar.directory(&name))?;
                self.open.push(through);
            }
            Event::EndDirectory => {
                self.open.pop();
                while self.archives.last().is_some_and(|archive| archive.depth == self.path.len()) {
                    if let Some(archive) = self.archives.pop() {
                        let file = archive.tar.finish()?;
                        self.found(file, &archive.claims, true);
                    }
                }
                self.path.pop();
            }
            Event::End => {}
        }
        Ok(())
    }

    /// Gives the claims that the node at hand is what they mean, and those that go on below it.
    fn arrived(&mut self) -> (Vec<usize>, Vec<usize>) {
        let depth = self.path.len();
        mem::take(&mut self.next).into_iter().partition(|&claim| self.claims[claim].components.len() == depth)
    }

    /// Gives the name of the node at hand below the item, with the item's own in front.
    fn archived_name(&self) -> Vec<Vec<u8>> {
        if self.archives.is_empty() {
            return Vec::new();
        }
        [&self.item_name].into_iter().chain(&self.path).cloned().collect()
    }

    /// Adds the node at hand, which has `size` bytes, to all archives that are open; ends those that it is too large for.
    fn archive(
        &mut self,
        size: u64,
        mut add: impl FnMut(&mut NamedTar<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut place = 0;
        while let Some(archive) = self.archives.get_mut(place) {
            if archive.tar.size().saturating_add(size) > self.limits.size {
                let archive = self.archives.remove(place);
                self.refuse_size(&archive.claims, archive.depth);
                continue;
            }
            add(&mut NamedTar { tar: &mut archive.tar, skip: archive.depth })?;
            place += 1;
        }
        Ok(())
    }

    fn begin_file(&mut self, wanted: Vec<usize>, size: u64) -> io::Result<()> {
        if wanted.is_empty() || !self.has_room(&wanted) {
            return Ok(());
        }
        if size > self.limits.size {
            self.refuse_size(&wanted, self.path.len());
            return Ok(());
        }
        self.file = Some((self.products.begin()?, wanted));
        Ok(())
    }

    fn begin_archive(&mut self, wanted: Vec<usize>) -> io::Result<()> {
        if wanted.is_empty() || !self.has_room(&wanted) {
            return Ok(());
        }
        let tar = Tar::new(self.products.begin()?);
        self.archives.push(Archive { tar, claims: wanted, depth: self.path.len() });
        Ok(())
    }

    /// Counts one product more, or refuses it.
    fn has_room(&mut self, wanted: &[usize]) -> bool {
        if self.begun < self.limits.files {
            self.begun += 1;
            return true;
        }
        for &claim in wanted {
            let refused = (self.claims[claim].wanted, Refused::TooMany { limit: self.most });
            if !self.reading.refused.contains(&refused) {
                self.reading.refused.push(refused);
            }
        }
        false
    }

    /// Refuses what the first `depth` names lead to.
    fn refuse_size(&mut self, claims: &[usize], depth: usize) {
        let path = self.path.get(..depth).unwrap_or_default();
        for &claim in claims {
            let claim = &self.claims[claim];
            let refused = Refused::TooLarge { path: text(&claim.path(path)), limit: self.limits.size };
            self.reading.refused.push((claim.wanted, refused));
        }
    }

    /// Adds what is at hand to what was found.
    fn found(&mut self, file: ProductFile, claims: &[usize], directory: bool) {
        let names = claims.iter().map(|&claim| {
            let claim = &self.claims[claim];
            (claim.wanted, text(&claim.path(&self.path)))
        });
        self.reading.found.push(Found { file: file.finish(), directory, names: names.collect() });
    }
}

/// An archive, and how much of a path it leaves out.
struct NamedTar<'a> {
    tar: &'a mut Tar<ProductFile>,
    skip: usize,
}

impl NamedTar<'_> {
    fn name(&self, path: &[Vec<u8>]) -> Vec<u8> {
        path.get(self.skip..).unwrap_or_default().join(&b'/')
    }

    fn file(&mut self, path: &[Vec<u8>], executable: bool, size: u64) -> io::Result<()> {
        let name = self.name(path);
        self.tar.file(&name, executable, size)
    }

    fn symlink(&mut self, path: &[Vec<u8>], target: &[u8]) -> io::Result<()> {
        let name = self.name(path);
        self.tar.symlink(&name, target)
    }

    fn directory(&mut self, path: &[Vec<u8>]) -> io::Result<()> {
        let name = self.name(path);
        self.tar.directory(&name)
    }
}
