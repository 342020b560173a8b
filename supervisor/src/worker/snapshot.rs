//! The snapshot from which zygotes start: V8's heap with SES in it, its intrinsics repaired. It is made once
//! for each version of Node and of the harness, in a jail, and kept in the data directory.
//!
//! What is the same in every zygote is in it; what must not be, random numbers above all, is not.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use jail::{Access, Grant, Kind};

use super::grants::places;
use super::launch::{Launch, LaunchError, Program};
use super::launcher::Launcher;
use super::node::{node_arguments, node_environment};
use super::ownership::read_untrusted;
use super::process::ExitCause;
use crate::config::{Installation, limits};
use crate::ids::Digest;

/// The file in the folder of its digest.
const FILE: &str = "guest.blob";
/// What Node is told to make, beside the file that it makes.
const CONFIG: &str = "snapshot.json";
/// Where both are inside the jail.
const FOLDER: &str = "/snapshot";

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("the folder of the guests' snapshot cannot be used: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("Node could not make the guests' snapshot, reinstall node-harness: it {0}")]
    Refused(String),
    #[error("Node did not make the guests' snapshot within {} s", limits::LOAD_TIME_MAX.as_secs())]
    Slow,
}

/// A snapshot on the disk.
#[derive(Clone, Debug)]
pub struct Snapshot {
    path: PathBuf,
}

impl Snapshot {
    /// Finds the snapshot in `folder` or makes it, and removes those of other versions.
    pub async fn prepare(launcher: &Launcher, folder: &Path) -> Result<Snapshot, SnapshotError> {
        let digest = digest_of(launcher.installation())?;
        let own = folder.join(digest.as_str());
        let path = own.join(FILE);
        if !path.is_file() {
            let blob = make(launcher).await?;
            create_folder(folder)?;
            keep(folder, &own, &blob)?;
        }
        for entry in fs::read_dir(folder)? {
            let other = entry?.path();
            if other != own {
                fs::remove_dir_all(other)?;
            }
        }
        Ok(Snapshot { path })
    }

    /// The file as a guest sees it, for `--snapshot-blob`.
    pub fn inside(&self, launcher: &Launcher) -> String {
        launcher.inside(&self.path, places::SNAPSHOT).to_string_lossy().into_owned()
    }

    pub fn grant(&self) -> Grant {
        Grant::new(&self.path, places::SNAPSHOT, Access::Read)
    }
}

/// Node refuses a snapshot of another version by itself; by what its file looks like, none is offered.
fn digest_of(installation: &Installation) -> io::Result<Digest> {
    let node = fs::metadata(&installation.node)?;
    let node = format!("{} {} {}", node.len(), node.mtime(), node.mtime_nsec());
    Ok(Digest::of(&[node.as_bytes(), &fs::read(installation.guest())?]))
}

/// Runs Node on the bundled guest.
async fn make(launcher: &Launcher) -> Result<Vec<u8>, SnapshotError> {
    let script = launcher.installation().guest();
    let target = Path::new(places::HARNESS).join("dist/guest.cjs");
    let folder = launcher.worker_folder()?;
    let made = folder.path().join("made");
    create_folder(&made)?;
    // Without V8's cache of compiled builtins every zygote holds 5 MB less, and starts no slower.
    let config = serde_json::json!({
        "builder": launcher.inside(&script, &target.to_string_lossy()),
        "withoutCodeCache": true,
    });
    fs::write(made.join(CONFIG), config.to_string())?;
    let inside = launcher.inside(&made, FOLDER);
    let option = |name: &str, file: &str| [name.to_owned(), inside.join(file).to_string_lossy().into_owned()];
    let mut arguments = node_arguments(limits::INSTALLER_HEAP_MEGABYTES_MAX);
    arguments.extend(option("--snapshot-blob", FILE));
    arguments.extend(option("--build-snapshot-config", CONFIG));
    let launch = Launch {
        kind: Kind::Installer,
        program: Program::Node,
        arguments,
        environment: node_environment(),
        grants: vec![Grant::new(&made, FOLDER, Access::Write), Grant::new(&script, &target, Access::Read)],
        directory: inside,
        program_memory_bytes: 0,
        jit: true,
        stdout_bytes_max: limits::STDOUT_BYTES_MAX,
        folder: None,
    };
    let (process, _socket) = launcher.launch(launch).await?;
    let exit = tokio::time::timeout(limits::LOAD_TIME_MAX, process.ended());
    let exit = exit.await.map_err(|_| SnapshotError::Slow)?;
    match exit.cause {
        ExitCause::Code(0) => Ok(read_untrusted(&made.join(FILE), limits::SNAPSHOT_BYTES_MAX)?),
        _ => Err(SnapshotError::Refused(exit.diagnosis())),
    }
}

/// Writes the blob under a name that is not looked for, and renames the whole.
fn keep(folder: &Path, own: &Path, blob: &[u8]) -> io::Result<()> {
    let new = folder.join("new");
    create_folder(&new)?;
    let mut file = File::create(new.join(FILE))?;
    file.write_all(blob)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.sync_all()?;
    fs::rename(&new, own)
}

/// Jailed users may pass through it, where there is no private root.
fn create_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711))
}
