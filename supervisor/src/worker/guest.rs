//! A guest: the Node process in which programs run.

use std::time::Duration;

use futures_util::FutureExt as _;
use jail::Kind;

use super::launch::LaunchError;
use super::node::{await_ready, started};
use super::process::Process;
use super::zygote::Zygotes;
use crate::config::{Policy, limits};
use crate::protocol::frame::Connection;
use crate::protocol::{Execution, FromGuest, ToGuest};

/// What a guest is given at its start, and cannot be changed afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestMake {
    pub(super) memory_bytes_max: u64,
    pub(super) jit: bool,
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
    /// What was announced since it was last at rest.
    announced: Option<String>,
    /// More memory than this, and it is replaced.
    bytes_max: u64,
}

impl Guest {
    /// Whether it lives, and has said nothing since it proved idle.
    pub fn is_usable(&self) -> bool {
        !self.process.has_ended() && self.connection.is_quiet()
    }

    /// Lets it get an execution ready that may come, once between two executions: what it takes counts as the next one's.
    /// It does not wait: what the socket does not take at once goes before the next message. Says whether it is told.
    pub fn announce(&mut self, execution: impl FnOnce() -> Option<Execution>) -> bool {
        if self.announced.is_some() {
            return false;
        }
        let Some(execution) = execution() else { return false };
        let id = execution.execution_id.clone();
        if self.connection.queue(&ToGuest::Announce(execution)).is_err() {
            return false;
        }
        self.announced = Some(id);
        // That a guest has gone away is found out when it is to be used.
        !matches!(self.connection.flush().now_or_never(), Some(Err(_)))
    }

    /// Whether this one was announced to it.
    pub fn expects(&self, execution_id: &str) -> bool {
        self.announced.as_deref() == Some(execution_id)
    }

    /// Whether so much memory is so much more than at its start that it is better replaced.
    pub fn has_grown_to(&self, memory_bytes: u64) -> bool {
        memory_bytes > self.bytes_max
    }

    /// Notes what it has used, so that the next program starts without it; nobody waits for a guest at rest.
    pub fn rest(&mut self) {
        self.announced = None;
        self.process.reset_peak();
        self.cpu_before = self.process.meter().cpu();
    }
}

impl SpareGuest {
    /// Lets the zygote of the make fork one.
    pub async fn start(zygotes: &Zygotes, make: GuestMake) -> Result<SpareGuest, LaunchError> {
        let (process, socket) = zygotes.fork(make).await?;
        let mut connection =
            Connection::new(socket, limits::FRAME_FROM_WORKER_BYTES_MAX, limits::FRAME_TO_WORKER_BYTES_MAX)
                .map_err(LaunchError::Spawn)?;
        let ready = await_ready(&mut connection, |message| matches!(message, FromGuest::Ready {})).await;
        let process = started(Kind::Guest, process, ready).await?;
        // A program leaves some of its values behind until V8 has reason to look for them. Another guest is soon
        // there.
        let bytes_max = process.memory_bytes() + make.memory_bytes_max / 2;
        let mut guest = Guest {
            process,
            connection,
            executions: 0,
            cpu_before: Duration::ZERO,
            announced: None,
            bytes_max,
        };
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
