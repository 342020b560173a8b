//! Folders that hold whatever a jailed process left there: how large they are, and how they are
//! removed. Neither follows links, and neither recurses: a process may have nested folders deeper than
//! a stack or a path can be long.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// What a tree may hold.
#[derive(Clone, Copy, Debug)]
pub struct TreeLimits {
    pub bytes_max: u64,
    pub entries_max: u64,
    pub depth_max: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    #[error("it holds more than {0} bytes")]
    Bytes(u64),
    #[error("it holds more than {0} files and folders")]
    Entries(u64),
    #[error("its folders are nested more than {0} levels deep")]
    Depth(usize),
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Checks a tree that may change meanwhile: what vanishes is not counted.
pub fn check_tree(root: &Path, limits: TreeLimits) -> Result<(), TreeError> {
    let (mut bytes, mut entries) = (0_u64, 0_u64);
    let mut pending = vec![(root.to_owned(), 0)];
    while let Some((folder, depth)) = pending.pop() {
        if depth > limits.depth_max {
            return Err(TreeError::Depth(limits.depth_max));
        }
        for entry in present(fs::read_dir(&folder))?.into_iter().flatten() {
            let Some(entry) = present(entry)? else { continue };
            let Some(metadata) = present(entry.metadata())? else { continue };
            entries += 1;
            bytes = bytes.saturating_add(metadata.blocks().saturating_mul(512));
            if metadata.is_dir() {
                pending.push((entry.path(), depth + 1));
            }
            if bytes > limits.bytes_max {
                return Err(TreeError::Bytes(limits.bytes_max));
            }
            if entries > limits.entries_max {
                return Err(TreeError::Entries(limits.entries_max));
            }
        }
    }
    Ok(())
}

fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Removes a folder and everything in it. Folders inside are first moved up, so that no path gets
/// long; nothing may be writing there.
pub fn remove_tree(root: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(root)?.is_dir() {
        return fs::remove_file(root);
    }
    let mut pending = VecDeque::from([root.to_owned()]);
    let mut moved = 0_u64;
    while let Some(folder) = pending.pop_front() {
        for entry in readable(&folder)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            if folder == *root {
                // It stays where it is, in the list of its own.
                pending.push_back(entry.path());
                continue;
            }
            let place = free_name(root, &mut moved);
            fs::rename(entry.path(), &place)?;
            pending.push_back(place);
        }
        if folder != *root {
            fs::remove_dir(&folder)?;
        }
    }
    fs::remove_dir(root)
}

/// A process may have taken its own user's permissions away.
fn readable(folder: &Path) -> io::Result<fs::ReadDir> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
            fs::read_dir(folder)
        }
        result => result,
    }
}

fn free_name(root: &Path, moved: &mut u64) -> PathBuf {
    loop {
        *moved += 1;
        let place = root.join(format!(".moved-{moved}"));
        if fs::symlink_metadata(&place).is_err() {
            return place;
        }
    }
}

/// A folder that is removed when dropped.
#[derive(Debug)]
pub struct TemporaryFolder(PathBuf);

impl TemporaryFolder {
    /// Takes over a folder that exists.
    pub fn of(path: PathBuf) -> TemporaryFolder {
        TemporaryFolder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFolder {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "a folder could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TreeLimits = TreeLimits { bytes_max: 1 << 20, entries_max: 50, depth_max: 10 };

    #[test]
    fn a_tree_is_measured_without_following_links() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "x").unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        assert!(check_tree(folder.path(), LIMITS).is_ok());
        assert!(matches!(
            check_tree(folder.path(), TreeLimits { entries_max: 1, ..LIMITS }),
            Err(TreeError::Entries(1))
        ));
        fs::write(folder.path().join("large"), vec![1; 1 << 20]).unwrap();
        assert!(matches!(check_tree(folder.path(), LIMITS), Err(TreeError::Bytes(_))));
    }

    #[test]
    fn folders_nested_deeper_than_a_path_is_long_are_refused_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        // Built from the inside out, because no path reaches that deep.
        let mut inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        for level in 0..20_000 {
            let outer = folder.path().join(format!("outer-{level}"));
            fs::create_dir(&outer).unwrap();
            fs::rename(&inner, outer.join("nested")).unwrap();
            inner = outer;
        }
        fs::rename(&inner, root.join("top")).unwrap();
        fs::write(root.join("file"), "x").unwrap();
        assert!(matches!(check_tree(&root, LIMITS), Err(TreeError::Depth(10))));
        remove_tree(&root).unwrap();
        assert!(!root.exists());
    }
}
