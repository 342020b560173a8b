//! Zygotes: Node processes that have booted and from which guests are forked, one for each make of guests.
//!
//! ```text
//!  Launcher::launch ──► Zygote (booted, rehearsed, waits) ──Launcher::fork──► a guest
//! ```
//!
//! A fork shares the memory of its zygote until it writes to it, so a guest costs a tenth of a boot. A zygote
//! runs the harness alone. Its guests are not its children and do not end with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jail::{FromZygote, JIT_VARIABLE, Kind};
use tokio::sync::OnceCell;

use super::grants::large_pages_grant;
use super::guest::GuestMake;
use super::launch::{Launch, LaunchError, Program};
use super::launcher::Launcher;
use super::node::{await_ready, node_arguments, node_environment, started};
use super::process::Process;
use super::snapshot::Snapshot;
use super::spawner::ZygoteSocket;
use crate::config::limits;
use crate::protocol::frame::Connection;

/// A process that forks guests.
pub struct Zygote {
    process: Process,
    socket: Arc<ZygoteSocket>,
    forks: AtomicU32,
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
        let mut grants = [launcher.guest_grants(), grants].concat();
        if make.jit {
            // The compiler that takes longest works on the program's own thread. What a guest does once in each
            // execution is not worth its time, ten times as often as V8 usually waits for.
            arguments.push("--invocation-count-for-turbofan=30000".to_owned());
            // A fork takes along what is in large pages, and Node's code as well then: otherwise each guest looks for
            // it in its file again, page by page.
            arguments.push("--use-largepages=silent".to_owned());
            grants.extend(large_pages_grant());
        } else {
            arguments.push("--jitless".to_owned());
            environment.insert(JIT_VARIABLE.to_owned(), "off".to_owned());
        }
        // A fork has no other threads.
        arguments.push("--single-threaded".to_owned());
        // A program runs once, most of its functions too: V8 would read them twice, to skip and to compile them.
        arguments.push("--no-lazy-eval".to_owned());
        // In steps V8 takes longer to mark its heap, and nothing in a guest is waiting for it to pause less.
        arguments.push("--no-incremental-marking".to_owned());
        arguments.extend(script);
        arguments.push(launcher.seal());
        let launch = Launch {
            kind: Kind::Zygote,
            program: Program::Node,
            arguments,
            environment,
            grants,
            directory: PathBuf::from("/"),
            program_memory_bytes: make.memory_bytes_max,
            jit: make.jit,
            stdout_bytes_max: limits::STDOUT_BYTES_MAX,
            folder: None,
        };
        let (process, socket) = launcher.launch(launch).await?;
        let mut connection: Connection<FromZygote, ()> =
            Connection::new(socket, jail::SPEC_BYTES_MAX, jail::SPEC_BYTES_MAX)
                .map_err(LaunchError::Spawn)?;
        let ready = await_ready(&mut connection, |message| matches!(message, FromZygote::Ready {})).await;
        let process = started(Kind::Zygote, process, ready).await?;
        let socket = connection.into_socket().map_err(LaunchError::Spawn)?;
        let socket = ZygoteSocket::new(socket, limits::FORK_TIME_MAX).map_err(LaunchError::Spawn)?;
        let forks = AtomicU32::new(0);
        Ok(Zygote { process, socket: Arc::new(socket), forks, program_memory_bytes: make.memory_bytes_max })
    }

    /// Where it is asked for one more guest.
    pub(super) fn socket(&self) -> Arc<ZygoteSocket> {
        self.forks.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.socket)
    }

    /// Whether it has forked so many that others should have another address layout.
    fn is_used_up(&self) -> bool {
        self.forks.load(Ordering::Relaxed) >= limits::FORKS_PER_ZYGOTE_MAX
    }

    fn is_usable(&self) -> bool {
        !self.process.has_ended() && !self.socket.is_broken()
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    cells: BTreeMap<GuestMake, Cell>,
    renewing: bool,
    /// None is kept any more.
    closed: bool,
}

impl Zygotes {
    pub fn new(launcher: Launcher, snapshot: Snapshot) -> Zygotes {
        Zygotes { launcher, snapshot, state: Mutex::default() }
    }

    /// Forks a guest, which has not said that it is ready. Where that fails it is tried once more, with another
    /// zygote if this one is to blame.
    pub(super) async fn fork(
        &self,
        make: GuestMake,
    ) -> Result<(Process, tokio::net::UnixStream), LaunchError> {
        match self.try_fork(make).await {
            Err(LaunchError::Spawn(error)) => {
                tracing::warn!(%error, "a guest could not be forked and is tried again");
                self.try_fork(make).await
            }
            forked => forked,
        }
    }

    async fn try_fork(&self, make: GuestMake) -> Result<(Process, tokio::net::UnixStream), LaunchError> {
        let cell = self.cell(make);
        let zygote = cell.get_or_try_init(|| self.start(make)).await?;
        self.launcher.fork(zygote).await
    }

    async fn start(&self, make: GuestMake) -> Result<Zygote, LaunchError> {
        let script = [
            // The seed of V8's hashes is the snapshot's, and so the same in all guests.
            "--no-rehash-snapshot".to_owned(),
            "--snapshot-blob".to_owned(),
            self.snapshot.inside(&self.launcher),
        ];
        Zygote::start(&self.launcher, make, script, vec![self.snapshot.grant()]).await
    }

    /// The zygote of a make, or the place of one to be.
    fn cell(&self, make: GuestMake) -> Cell {
        let mut state = self.state();
        if state.closed {
            return Cell::default();
        }
        let cell = state.cells.entry(make).or_default();
        if cell.get().is_some_and(|zygote| !zygote.is_usable()) {
            tracing::warn!("a zygote has ended and is replaced");
            *cell = Cell::default();
        }
        Arc::clone(cell)
    }

    /// Replaces those that are used up, once their successors are ready. Called regularly.
    pub async fn renew(&self) {
        let used_up: Vec<GuestMake> = {
            let mut state = self.state();
            if std::mem::replace(&mut state.renewing, true) {
                return;
            }
            let makes = state.cells.iter().filter(|(_, cell)| cell.get().is_some_and(Zygote::is_used_up));
            makes.map(|(make, _)| *make).collect()
        };
        for make in used_up {
            match self.start(make).await {
                Ok(zygote) => {
                    // One that nobody wants any more has no place, and ends.
                    if let Some(cell) = self.state().cells.get_mut(&make) {
                        *cell = Arc::new(OnceCell::new_with(Some(zygote)));
                        tracing::info!("a zygote that has forked enough guests was replaced");
                    }
                }
                Err(error) => tracing::warn!(%error, "the successor of a zygote could not be started"),
            }
        }
        self.state().renewing = false;
    }

    /// Ends those of makes that are not wanted any more.
    pub fn retain(&self, wanted: impl Fn(&GuestMake) -> bool) {
        self.state().cells.retain(|make, _| wanted(make));
    }

    /// Ends all; what is still forked has one of its own.
    pub fn close(&self) {
        *self.state() = State { closed: true, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
