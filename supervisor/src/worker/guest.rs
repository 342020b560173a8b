//! A guest: the Node process in which programs run.

use std::path::PathBuf;
use std::time::Duration;

use jail::{JIT_VARIABLE, Kind};

use super::launcher::{Launch, LaunchError, Launcher, Program};
use super::node::{await_ready, node_arguments, node_environment, started};
use super::process::Process;
use super::snapshot::Snapshot;
use crate::config::{Policy, limits};
use crate::protocol::frame::Connection;
use crate::protocol::{FromGuest, ToGuest};

/// What a guest is given at its start, and cannot be changed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestMake {
    memory_bytes_max: u64,
    jit: bool,
}

impl GuestMake {
    pub fn of(policy: &Policy) -> GuestMake {
        GuestMake { memory_bytes_max: policy.memory_bytes_max, jit: policy.jit }
    }
}

/// A guest that said `ready`: it is sealed, and has served nobody.
pub struct SpareGuest(Guest);

/// One that serves whoever it is bound to.
pub struct Guest {
    pub process: Process,
    pub connection: Connection<FromGuest, ToGuest>,
    /// Programs that ran in it.
    pub executions: u32,
    /// The processor time that it had used when it was last at rest.
    pub cpu_before: Duration,
    /// More memory than this, and it is replaced.
    bytes_max: u64,
}

impl Guest {
    /// Whether it lives, and has said nothing since it proved idle.
    pub fn is_usable(&self) -> bool {
        !self.process.has_ended() && self.connection.is_quiet()
    }

    /// Whether it holds so much more memory than at its start that it is better replaced.
    pub fn has_grown(&self) -> bool {
        self.process.memory_bytes() > self.bytes_max
    }

    /// Notes what it has used, so that the next program starts without it; nobody waits for a guest at rest.
    pub fn rest(&mut self) {
        self.process.reset_peak();
        self.cpu_before = self.process.meter().cpu();
    }
}

impl SpareGuest {
    /// Starts from the snapshot.
    pub async fn start(
        launcher: &Launcher,
        snapshot: &Snapshot,
        make: GuestMake,
    ) -> Result<SpareGuest, LaunchError> {
        let heap = make.memory_bytes_max / limits::MEGABYTE;
        let mut arguments = node_arguments(heap);
        let mut environment = node_environment();
        if !make.jit {
            arguments.push("--jitless".to_owned());
            environment.insert(JIT_VARIABLE.to_owned(), "off".to_owned());
        }
        // Its heap is small, and many guests share few processors.
        arguments.push("--single-threaded-gc".to_owned());
        // The seed of V8's hashes is the snapshot's: secret, and the same in all guests, whose programs could
        // only slow themselves down with it.
        arguments.push("--no-rehash-snapshot".to_owned());
        arguments.extend(["--snapshot-blob".to_owned(), snapshot.inside(launcher), launcher.seal()]);
        let mut grants = launcher.guest_grants();
        grants.push(snapshot.grant());
        let launch = Launch {
            kind: Kind::Guest,
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
        let mut connection =
            Connection::new(socket, limits::FRAME_FROM_WORKER_BYTES_MAX, limits::FRAME_TO_WORKER_BYTES_MAX);
        let ready = await_ready(&mut connection, |message| matches!(message, FromGuest::Ready {})).await;
        let process = started(Kind::Guest, process, ready).await?;
        // A program leaves some of its values behind until V8 has reason to look for them.
        let bytes_max = process.memory_bytes() + make.memory_bytes_max * 3 / 4;
        let mut guest = Guest { process, connection, executions: 0, cpu_before: Duration::ZERO, bytes_max };
        guest.rest();
        Ok(SpareGuest(guest))
    }

    pub fn is_usable(&self) -> bool {
        self.0.is_usable()
    }

    pub fn memory_bytes(&self) -> u64 {
        self.0.process.memory_bytes()
    }

    /// It serves one binding from here on.
    pub fn bind(self) -> Guest {
        self.0
    }
}
