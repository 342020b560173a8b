//! The shared libraries of a program, read from the ELF files without running anything.

use std::io;
use std::path::{Path, PathBuf};

use jail::{Access, Grant};
use lddtree::DependencyAnalyzer;

/// The grants that a dynamically linked program needs to start: the loader, its cache, and every
/// library, each at the path where the loader looks for it.
pub fn grants(program: &Path) -> io::Result<Vec<Grant>> {
    let unreadable = |error| io::Error::other(format!("{}: {error}", program.display()));
    let tree = DependencyAnalyzer::new(PathBuf::from("/")).analyze(program).map_err(unreadable)?;
    let mut grants = Vec::new();
    if let Some(interpreter) = tree.interpreter {
        grants.push(Grant::new(Path::new(&interpreter).canonicalize()?, interpreter, Access::Execute));
    }
    for (name, library) in tree.libraries {
        if grants.iter().any(|grant| grant.target == library.path) {
            continue;
        }
        if !library.found() {
            return Err(io::Error::other(format!(
                "{} needs {name}, which is not installed",
                program.display()
            )));
        }
        grants.push(Grant::new(library.path.canonicalize()?, library.path, Access::Read));
    }
    let cache = Path::new("/etc/ld.so.cache");
    if cache.exists() {
        grants.push(Grant::new(cache, cache, Access::Read));
    }
    Ok(grants)
}
