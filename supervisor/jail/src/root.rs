//! The private root: an empty, read-only file system that holds the granted paths and nothing else.
//!
//! It needs a mount namespace of its own, and has to be built before Landlock (a landlocked thread
//! cannot mount) and before the capabilities are gone.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::pivot_root;

use crate::{Access, Grant};

/// Room for the directory entries of the mount points.
const ROOT_OPTIONS: &str = "size=64k,nr_inodes=256,mode=755";

/// Mounts the root over `mount_point`, an empty directory, and makes it `/`.
pub fn enter(mount_point: &Path, grants: &[Grant]) -> io::Result<()> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), mount_point, Some("tmpfs"), flags, Some(ROOT_OPTIONS))?;
    for grant in grants {
        bind(mount_point, grant)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", grant.source.display())))?;
    }
    std::env::set_current_dir(mount_point)?;
    // With both paths the same, the old root ends up mounted over the new one (pivot_root(2)).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    let sealed = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | flags;
    mount(None::<&str>, "/", None::<&str>, sealed, None::<&str>)?;
    Ok(())
}

fn bind(mount_point: &Path, grant: &Grant) -> io::Result<()> {
    let relative =
        grant.target.strip_prefix("/").map_err(|_| io::Error::other("a target must be absolute"))?;
    let place = mount_point.join(relative);
    if grant.source.is_dir() {
        fs::create_dir_all(&place)?;
    } else {
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        File::create(&place)?;
    }
    mount(Some(&grant.source), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let writable = if grant.access == Access::Write { MsFlags::empty() } else { MsFlags::MS_RDONLY };
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | writable;
    mount(None::<&str>, &place, None::<&str>, flags | inherited(&grant.source)?, None::<&str>)?;
    Ok(())
}

/// Flags of the source that an unprivileged remount must repeat (`mount_namespaces(7)`).
fn inherited(source: &Path) -> io::Result<MsFlags> {
    let found = statvfs(source)?.flags();
    let pairs = [
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
    ];
    Ok(pairs
        .into_iter()
        .filter(|(flag, _)| found.contains(*flag))
        .fold(MsFlags::empty(), |all, (_, flag)| all | flag))
}
