//! What a jailed process is given of the host's files, and where it finds it.

use std::io;
use std::path::Path;

use jail::{Access, Grant};

use super::libraries;

/// Where things are inside a jail.
pub mod places {
    pub const NODE: &str = "/node";
    pub const ANALYZER: &str = "/analyzer";
    pub const HARNESS: &str = "/harness";
    pub const SEAL: &str = "/seal.so";
    pub const SNAPSHOT: &str = "/guest.blob";
    pub const ENVIRONMENT: &str = "/environment";
    pub const EGRESS: &str = "/egress";
    pub const NPM: &str = "/npm";
}

/// A program and its libraries.
pub fn program_grants(program: &Path, target: &str) -> io::Result<Vec<Grant>> {
    let mut grants = vec![Grant::new(program, target, Access::Execute)];
    grants.extend(libraries::grants(program)?);
    Ok(grants)
}

/// What the kernel says of large pages, without which Node asks for none.
pub fn large_pages_grant() -> Option<Grant> {
    let place = "/sys/kernel/mm/transparent_hugepage/enabled";
    Path::new(place).exists().then(|| Grant::new(Path::new(place), place, Access::Read))
}

/// The seal, and those of its libraries that Node does not bring.
pub fn seal_grants(seal: &Path, node_grants: &[Grant]) -> io::Result<Vec<Grant>> {
    let mut grants = vec![Grant::new(seal, places::SEAL, Access::Read)];
    let needed = libraries::grants(seal)?;
    grants.extend(
        needed.into_iter().filter(|grant| node_grants.iter().all(|known| known.target != grant.target)),
    );
    Ok(grants)
}
