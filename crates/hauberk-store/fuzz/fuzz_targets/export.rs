//! A stream reads the same however it is cut.
#![no_main]

use hauberk_store::{StoreDirectory, export::{Decoder, Event, ExportError, ExportedItem}, nar::Limits, signature::guix::Acl};
use libfuzzer_sys::fuzz_target;

fn read(bytes: &[u8], piece: usize) -> Result<(Vec<ExportedItem>, Vec<u8>), ExportError> {
    let mut decoder = Decoder::new(StoreDirectory::guix(), Limits::with_size(1 << 20));
    let (mut items, mut nars) = (Vec::new(), Vec::new());
    for mut part in bytes.chunks(piece) {
        while let Some(event) = decoder.next(&mut part)? {
            match event {
                Event::Nar(bytes) => nars.extend_from_slice(bytes),
                Event::Item(item) => items.push(*item),
                Event::Begin | Event::End => {}
            }
        }
    }
    decoder.finish()?;
    Ok((items, nars))
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len().max(1));
    for piece in [1, 7] {
        let cut = read(bytes, piece);
        assert_eq!(cut.is_ok(), whole.is_ok());
        if let (Ok(cut), Ok(whole)) = (&cut, &whole) {
            assert_eq!(cut, whole);
        }
    }
    for item in whole.iter().flat_map(|(items, _)| items) {
        let _ = item.verify(&Acl::default());
    }
});
