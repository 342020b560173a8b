//! Folders that a jailed process may write: who owns them, and how we read and write there without
//! following what the process left.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{Gid, Uid, fchownat};

/// Gives a folder and everything in it to a user. Links are not followed: an earlier jailed process
/// may have made them. Nothing that could still write may be running.
pub fn give_tree(path: &Path, uid: u32) -> io::Result<()> {
    fchownat(
        AT_FDCWD,
        path,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(uid)),
        AtFlags::AT_SYMLINK_NOFOLLOW,
    )?;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            give_tree(&entry?.path(), uid)?;
        }
    }
    Ok(())
}

/// Reads what a jailed process wrote: a plain file with one name, of at most so many bytes. No
/// jailed process that could write there may be running.
pub fn read_untrusted(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.nlink() != 1 || metadata.len() > bytes_max as u64 {
        return Err(io::Error::other(format!(
            "{} is not a plain file of at most {bytes_max} bytes",
            path.display()
        )));
    }
    let mut content = Vec::new();
    file.take(bytes_max as u64).read_to_end(&mut content)?;
    Ok(content)
}

/// Writes a new file, readable for all, in place of whatever has its name.
pub fn write_fresh(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_a_process_left_are_neither_read_nor_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, link) = (folder.path().join("secret"), folder.path().join("link"));
        fs::write(&secret, "secret").unwrap();
        symlink(&secret, &link).unwrap();
        assert!(read_untrusted(&link, 100).is_err());
        write_fresh(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(read_untrusted(&link, 100).unwrap(), b"new");
        fs::hard_link(&secret, folder.path().join("hard")).unwrap();
        assert!(read_untrusted(&folder.path().join("hard"), 100).is_err());
        assert!(read_untrusted(&link, 2).is_err());
        assert!(read_untrusted(Path::new("/dev/zero"), 100).is_err());
    }
}
