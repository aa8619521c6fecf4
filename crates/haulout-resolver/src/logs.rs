//! Build logs of the machine's own store, for its own Nix.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;
use bzip2::read::BzDecoder;
use haulout_nix::StorePath;
use haulout_nix::db::StoreLocation;

/// Most of a log that is answered, in bytes of text. The rest is left out,
/// and the text says so.
const LOG_MAX: usize = 16 << 20;

/// The log of building this derivation (blocking). `None`: there is none, or
/// it cannot be read.
pub(crate) fn read(location: &StoreLocation, derivation: &StorePath) -> Option<Bytes> {
    location.build_logs(derivation).into_iter().find_map(|(file, compressed)| {
        match read_file(&file, compressed, LOG_MAX) {
            Ok(text) => Some(text),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::info!(file = %file.display(), %error, "a build log cannot be read");
                }
                None
            }
        }
    })
}

fn read_file(path: &Path, compressed: bool, max: usize) -> io::Result<Bytes> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    // One byte more shows whether there is a rest.
    let most = max as u64 + 1;
    if compressed {
        BzDecoder::new(file).take(most).read_to_end(&mut text)?;
    } else {
        file.take(most).read_to_end(&mut text)?;
    }
    if text.len() > max {
        text.truncate(max);
        let note = format!("\n[cut after {} MiB; all of it: {}]\n", max >> 20, path.display());
        text.extend_from_slice(note.as_bytes());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use bzip2::Compression;
    use bzip2::write::BzEncoder;

    use super::*;

    fn drv() -> StorePath {
        "0c0nqf1k8r8xyh5hbz4w1mfcmdlz7hpj-hello.drv".parse().unwrap()
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = BzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn both_kinds_of_log_are_read_and_damage_is_no_log() {
        let dir = tempfile::tempdir().unwrap();
        let location = StoreLocation::chroot(dir.path());
        let [(packed_file, _), (plain_file, _)] = location.build_logs(&drv());
        assert_eq!(read(&location, &drv()), None);
        fs::create_dir_all(plain_file.parent().unwrap()).unwrap();
        fs::write(&plain_file, "plain\n").unwrap();
        assert_eq!(read(&location, &drv()).unwrap(), "plain\n");
        fs::write(&packed_file, packed(b"packed\n")).unwrap();
        assert_eq!(read(&location, &drv()).unwrap(), "packed\n");

        let mut damaged = packed(&[7; 9999]);
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(&packed_file, &damaged).unwrap();
        fs::remove_file(&plain_file).unwrap();
        assert_eq!(read(&location, &drv()), None);
        fs::write(&packed_file, &packed(b"cut short")[..20]).unwrap();
        assert_eq!(read(&location, &drv()), None);
        fs::remove_file(&packed_file).unwrap();
        fs::create_dir(&packed_file).unwrap();
        assert_eq!(read(&location, &drv()), None);
    }

    #[test]
    fn a_log_is_cut_at_the_limit_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("log");
        // 40 bytes of bzip2 can be megabytes of text.
        fs::write(&file, packed(&vec![b'x'; 5 << 20])).unwrap();
        let text = read_file(&file, true, 1 << 20).unwrap();
        assert!(text.len() < (1 << 20) + 200);
        assert!(text.ends_with(format!("all of it: {}]\n", file.display()).as_bytes()));
        fs::write(&file, "exact").unwrap();
        assert_eq!(read_file(&file, false, 5).unwrap(), "exact");
    }
}
