//! NARs that a real GNU Guix served.

use hauberk_store::nar::{Limits, Listing, ListingEntry, Node, restore, write_path};

use crate::data::{vector, vector_names};

#[test]
fn every_nar_round_trips() {
    let names = vector_names("nar", ".nar");
    assert_eq!(names.len(), 8);
    let scratch = tempfile::tempdir().unwrap();
    for name in names {
        let nar = vector(&format!("nar/{name}"));
        let node = Node::from_nar(&nar, Limits::default()).unwrap();
        assert!(node.to_nar().unwrap() == nar, "{name}");
        let target = scratch.path().join(&name);
        restore(&nar[..], &target, Limits::default()).unwrap();
        let mut again = Vec::new();
        write_path(&target, &mut again).unwrap();
        assert!(again == nar, "{name}");
    }
}

#[test]
fn the_tree_is_listed() {
    let nar = vector("nar/3xf8zk4l1i608sa6k4m25y00ifnd5yma-tree.nar");
    let listing = Listing::read(&nar[..], Limits::default()).unwrap();
    let count =
        |test: fn(&ListingEntry) -> bool| listing.entries.iter().filter(|(_, entry)| test(entry)).count();
    assert!(count(|entry| matches!(entry, ListingEntry::Symlink { .. })) >= 1);
    assert!(count(|entry| matches!(entry, ListingEntry::File { executable: true, .. })) >= 1);
    assert!(count(|entry| matches!(entry, ListingEntry::File { size: 0, .. })) >= 1);
    assert!(listing.entries.iter().any(|(path, _)| !path.is_ascii()));
    for (path, entry) in &listing.entries {
        if let ListingEntry::File { size, offset, hash, .. } = entry {
            let (begin, end) = (usize::try_from(*offset).unwrap(), usize::try_from(offset + size).unwrap());
            assert_eq!(hauberk_store::Sha256::digest(&nar[begin..end]), *hash, "{path:?}");
        }
    }
}
