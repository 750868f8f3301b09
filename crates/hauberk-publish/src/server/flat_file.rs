//! A file out of its nar.

use std::io::{self, Read};

/// Bytes of a nar before the contents of a file that is not executable, their length left out.
const HEAD: usize = 88;

/// Reads the head of a nar. Gives the length of the file that it is, whose bytes come next; nothing where it is anything but a plain file that is
/// not executable.
///
/// # Errors
/// A reader that fails.
pub(super) fn open(nar: &mut impl Read) -> io::Result<Option<u64>> {
    let mut head = [0; HEAD];
    match nar.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut expected = Vec::with_capacity(HEAD);
    for word in ["nix-archive-1", "(", "type", "regular", "contents"] {
        expected.extend_from_slice(&(word.len() as u64).to_le_bytes());
        expected.extend_from_slice(word.as_bytes());
        expected.resize(expected.len().next_multiple_of(8), 0);
    }
    if expected != head {
        return Ok(None);
    }
    let mut length = [0; 8];
    nar.read_exact(&mut length)?;
    Ok(Some(u64::from_le_bytes(length)))
}

#[cfg(test)]
mod tests {
    use hauberk_store::nar::Node;

    use super::*;

    #[test]
    fn only_a_plain_file_is_opened() {
        let nar = Node::file("some bytes").to_nar().unwrap();
        let mut reader = nar.as_slice();
        assert_eq!(open(&mut reader).unwrap(), Some(10));
        assert!(reader.starts_with(b"some bytes"));
        for other in [
            Node::File { executable: true, contents: b"some bytes".to_vec() },
            Node::Symlink { target: b"some bytes and more of them".to_vec() },
            Node::Directory { entries: [(b"name".to_vec(), Node::file("x"))].into() },
        ] {
            assert_eq!(open(&mut other.to_nar().unwrap().as_slice()).unwrap(), None);
        }
        assert_eq!(open(&mut &nar[..60]).unwrap(), None);
        assert!(open(&mut &nar[..90]).is_err());
    }
}
