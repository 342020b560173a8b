//! Who owns a folder that a jailed process may write.

use std::fs;
use std::io;
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
