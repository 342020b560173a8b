//! Build folders: `builds/<digest>`, made beside and renamed, removed when nothing uses them.
//!
//! ```text
//!  <digest>/ package.json  package-lock.json  node_modules/  implementation.cjs or .mjs
//! ```

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::ids::Digest;
use crate::worker::{TemporaryFolder, remove_tree};
use analyzer::{Implementation, ModuleKind};

const STAGING_PREFIX: &str = ".staging-";
const REMOVED_PREFIX: &str = ".removed-";

/// A finished build. Whoever uses the folder holds this.
#[derive(Debug)]
pub struct Build {
    digest: Digest,
    folder: PathBuf,
}

impl Build {
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The implementation's file name in a build.
pub fn implementation_file(module: ModuleKind) -> &'static str {
    match module {
        ModuleKind::CommonJs => "implementation.cjs",
        ModuleKind::Module => "implementation.mjs",
    }
}

/// The implementation with its functions exported under names that no code of its own uses.
pub fn exporting(code: &str, implementation: &Implementation) -> String {
    let hooks = ["Initialize", "Deinitialize"];
    let names = hooks.into_iter().chain(implementation.endowments.iter().map(String::as_str));
    match implementation.module {
        ModuleKind::CommonJs => {
            let list: Vec<String> = names.map(|name| format!("\"endowment:{name}\": {name}")).collect();
            format!("{code}\nmodule.exports = {{ {} }};\n", list.join(", "))
        }
        ModuleKind::Module => {
            let list: Vec<String> = names.map(|name| format!("{name} as \"endowment:{name}\"")).collect();
            format!("{code}\nexport {{ {} }};\n", list.join(", "))
        }
    }
}

/// The folder of builds, and which of them are in use.
#[derive(Clone)]
pub struct Builds {
    folder: PathBuf,
    known: Arc<Mutex<HashMap<Digest, Arc<Build>>>>,
}

impl Builds {
    /// Opens the folder; what an interrupted installation or an unfinished removal left is removed.
    pub fn open(folder: PathBuf, stored: &[String]) -> io::Result<Builds> {
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711))?;
        let mut known = HashMap::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if stored.contains(&name) {
                let digest = Digest::stored(name);
                known.insert(digest.clone(), Arc::new(Build { digest, folder: entry.path() }));
            } else {
                remove(&entry.path());
            }
        }
        Ok(Builds { folder, known: Arc::new(Mutex::new(known)) })
    }

    pub fn find(&self, digest: &Digest) -> Option<Arc<Build>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    /// A folder beside the builds, removed unless it is finished.
    pub fn stage(&self) -> io::Result<TemporaryFolder> {
        let made = tempfile::Builder::new()
            .prefix(STAGING_PREFIX)
            .permissions(fs::Permissions::from_mode(0o711))
            .tempdir_in(&self.folder)?;
        Ok(TemporaryFolder::of(made.keep()))
    }

    /// Renames a staged build to its digest. When another request made the same build meanwhile, that
    /// one is used.
    pub fn finish(&self, staged: &Path, digest: Digest) -> io::Result<Arc<Build>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(build) = known.get(&digest) {
            return Ok(Arc::clone(build));
        }
        let folder = self.folder.join(digest.as_str());
        fs::rename(staged, &folder)?;
        let build = Arc::new(Build { digest: digest.clone(), folder });
        known.insert(digest, Arc::clone(&build));
        Ok(build)
    }

    /// Removes the builds that no environment and no process uses, and names them.
    pub fn collect(&self) -> Vec<Digest> {
        let mut removed = Vec::new();
        for (digest, aside) in self.set_aside() {
            remove(&aside);
            removed.push(digest);
        }
        removed
    }

    /// Renames unused builds, so that one with the same digest can be made while they are removed.
    fn set_aside(&self) -> Vec<(Digest, PathBuf)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut moved = Vec::new();
        known.retain(|digest, build| {
            if Arc::strong_count(build) > 1 {
                return true;
            }
            let aside = self.folder.join(format!("{REMOVED_PREFIX}{digest}"));
            match fs::rename(&build.folder, &aside) {
                Ok(()) => {
                    moved.push((digest.clone(), aside));
                    false
                }
                Err(error) => {
                    tracing::warn!(build = %digest, %error, "an unused build could not be set aside");
                    true
                }
            }
        });
        moved
    }
}

/// Removes a folder; what stays is tried again at the next start, and harms nothing but the disk.
fn remove(folder: &Path) {
    if let Err(error) = remove_tree(folder) {
        tracing::warn!(folder = %folder.display(), %error, "a folder could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_exported_under_their_own_prefix() {
        let mut implementation =
            Implementation { module: ModuleKind::CommonJs, endowments: vec!["GetA".to_owned()] };
        let text = exporting("code // end", &implementation);
        assert!(
            text.starts_with("code // end\nmodule.exports = { \"endowment:Initialize\": Initialize,"),
            "{text}"
        );
        implementation.module = ModuleKind::Module;
        assert!(exporting("code", &implementation).ends_with("GetA as \"endowment:GetA\" };\n"));
    }

    #[test]
    fn a_build_is_removed_only_when_nothing_uses_it() {
        let folder = tempfile::tempdir().unwrap();
        let builds = Builds::open(folder.path().join("builds"), &[]).unwrap();
        let staged = builds.stage().unwrap();
        fs::create_dir(staged.path().join("build")).unwrap();
        let build = builds.finish(&staged.path().join("build"), Digest::of_text("a")).unwrap();
        assert!(builds.collect().is_empty());
        let path = build.folder().to_owned();
        drop(build);
        assert_eq!(builds.collect().len(), 1);
        assert!(!path.exists());
    }

    #[test]
    fn what_the_database_does_not_know_is_removed_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["known", "unknown", ".staging-1"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let builds =
            Builds::open(folder.path().to_owned(), &["known".to_owned(), "lost".to_owned()]).unwrap();
        assert!(builds.find(&Digest::stored("known".to_owned())).is_some());
        assert!(builds.find(&Digest::stored("lost".to_owned())).is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
