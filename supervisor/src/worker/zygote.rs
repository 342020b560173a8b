//! Zygotes: Node processes that have booted and from which guests are forked, one for each make of guests.
//!
//! ```text
//!  Launcher::launch ──► Zygote (booted, rehearsed, waits) ──Launcher::fork──► a guest
//! ```
//!
//! A fork shares the memory of its zygote until it writes to it, so a guest costs a tenth of a boot. A zygote
//! runs the harness alone. Its guests are not its children and do not end with it.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jail::{FromZygote, JIT_VARIABLE, Kind};
use tokio::sync::OnceCell;

use super::guest::GuestMake;
use super::launch::{Launch, LaunchError, Program};
use super::launcher::Launcher;
use super::node::{await_ready, node_arguments, node_environment, started};
use super::process::Process;
use super::snapshot::Snapshot;
use crate::config::limits;
use crate::protocol::frame::Connection;

/// A process that forks guests.
pub struct Zygote {
    process: Process,
    /// Blocks; the spawner's thread alone speaks on it.
    socket: Arc<UnixStream>,
    program_memory_bytes: u64,
}

impl Zygote {
    /// Starts Node with `script` and its arguments, the last of which is the seal, which it must load.
    pub async fn start(
        launcher: &Launcher,
        make: GuestMake,
        script: impl IntoIterator<Item = String>,
        grants: Vec<jail::Grant>,
    ) -> Result<Zygote, LaunchError> {
        let mut arguments = node_arguments(make.memory_bytes_max / limits::MEGABYTE);
        let mut environment = node_environment();
        if !make.jit {
            arguments.push("--jitless".to_owned());
            environment.insert(JIT_VARIABLE.to_owned(), "off".to_owned());
        }
        // A fork has no other threads.
        arguments.push("--single-threaded".to_owned());
        arguments.extend(script);
        arguments.push(launcher.seal());
        let launch = Launch {
            kind: Kind::Zygote,
            program: Program::Node,
            arguments,
            environment,
            grants: [launcher.guest_grants(), grants].concat(),
            directory: PathBuf::from("/"),
            program_memory_bytes: make.memory_bytes_max,
            jit: make.jit,
            stdout_bytes_max: limits::STDOUT_BYTES_MAX,
            folder: None,
        };
        let (process, socket) = launcher.launch(launch).await?;
        let mut connection: Connection<FromZygote, ()> =
            Connection::new(socket, jail::SPEC_BYTES_MAX, jail::SPEC_BYTES_MAX);
        let ready = await_ready(&mut connection, |message| matches!(message, FromZygote::Ready {})).await;
        let process = started(Kind::Zygote, process, ready).await?;
        let socket = connection.into_socket().map_err(LaunchError::Spawn)?;
        socket.set_read_timeout(Some(limits::FORK_TIME_MAX)).map_err(LaunchError::Spawn)?;
        Ok(Zygote { process, socket: Arc::new(socket), program_memory_bytes: make.memory_bytes_max })
    }

    pub(super) fn socket(&self) -> Arc<UnixStream> {
        Arc::clone(&self.socket)
    }

    /// What its guests may hold beyond what every guest may.
    pub(super) fn program_memory_bytes(&self) -> u64 {
        self.program_memory_bytes
    }
}

type Cell = Arc<OnceCell<Zygote>>;

/// The zygotes that run, by what they make.
pub struct Zygotes {
    launcher: Launcher,
    snapshot: Snapshot,
    cells: Mutex<BTreeMap<GuestMake, Cell>>,
}

impl Zygotes {
    pub fn new(launcher: Launcher, snapshot: Snapshot) -> Zygotes {
        Zygotes { launcher, snapshot, cells: Mutex::default() }
    }

    /// Forks a guest, which has not said that it is ready. A zygote that fails is given up, and its
    /// successor tried once.
    pub(super) async fn fork(
        &self,
        make: GuestMake,
    ) -> Result<(Process, tokio::net::UnixStream), LaunchError> {
        match self.try_fork(make).await {
            Err(LaunchError::Spawn(error)) => {
                tracing::warn!(%error, "a zygote failed and is replaced");
                self.try_fork(make).await
            }
            forked => forked,
        }
    }

    async fn try_fork(&self, make: GuestMake) -> Result<(Process, tokio::net::UnixStream), LaunchError> {
        let cell = self.cell(make);
        let zygote = cell.get_or_try_init(|| self.start(make)).await?;
        let forked = self.launcher.fork(zygote).await;
        if matches!(forked, Err(LaunchError::Spawn(_))) {
            self.give_up(make, &cell);
        }
        forked
    }

    async fn start(&self, make: GuestMake) -> Result<Zygote, LaunchError> {
        let script = [
            // The seed of V8's hashes is the snapshot's: secret, and the same in all guests, whose programs could
            // only slow themselves down with it.
            "--no-rehash-snapshot".to_owned(),
            "--snapshot-blob".to_owned(),
            self.snapshot.inside(&self.launcher),
        ];
        Zygote::start(&self.launcher, make, script, vec![self.snapshot.grant()]).await
    }

    /// The zygote of a make, or the place of one to be.
    fn cell(&self, make: GuestMake) -> Cell {
        let mut cells = self.cells();
        let cell = cells.entry(make).or_default();
        if cell.get().is_some_and(|zygote| zygote.process.has_ended()) {
            tracing::warn!("a zygote has ended and is replaced");
            *cell = Cell::default();
        }
        Arc::clone(cell)
    }

    fn give_up(&self, make: GuestMake, failed: &Cell) {
        let mut cells = self.cells();
        if cells.get(&make).is_some_and(|cell| Arc::ptr_eq(cell, failed)) {
            cells.remove(&make);
        }
    }

    /// Ends those of makes that are not wanted any more.
    pub fn retain(&self, wanted: impl Fn(&GuestMake) -> bool) {
        self.cells().retain(|make, _| wanted(make));
    }

    fn cells(&self) -> MutexGuard<'_, BTreeMap<GuestMake, Cell>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
