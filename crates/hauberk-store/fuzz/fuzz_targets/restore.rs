//! Nothing is made outside the target, and what is made is the archive.
#![no_main]

use std::fs;

use hauberk_store::nar::{Limits, restore, write_path};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let scratch = std::env::temp_dir().join(format!("hauberk-store-fuzz-{}", std::process::id()));
    let _ = fs::remove_dir_all(&scratch);
    fs::create_dir(&scratch).expect("the temporary directory is ours");
    let target = scratch.join("target");
    let restored = restore(bytes, &target, Limits { size: 1 << 16, depth: 16, entries: 100 });
    let names: Vec<_> = fs::read_dir(&scratch).expect("it was made").flatten().map(|entry| entry.file_name()).collect();
    assert!(names.iter().all(|name| name == "target"), "{names:?}");
    if restored.is_ok() {
        let mut again = Vec::new();
        write_path(&target, &mut again).expect("what was made is read");
        assert_eq!(again, bytes);
    }
    fs::remove_dir_all(&scratch).expect("it is ours");
});
