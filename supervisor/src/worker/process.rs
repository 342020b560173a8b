//! One jailed process from its start to the removal of everything that it had.
//!
//! ```text
//!  running ──exit──► reaped ──► Exit published ──► group, user id and folder released
//!     └──kill──► (SIGKILL) ──┘
//! ```
//!
//! A single task owns the child, and a shutdown waits for it. Everyone else holds a `Process`: dropping it kills.

use std::sync::Arc;
use std::time::Duration;

use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cgroup::{Group, GroupUsage, SteppedBack};
use super::child::{Child, Outputs};
use super::identity::Leased;
use super::proc;
use super::tree::TemporaryFolder;
use crate::config::limits;
use crate::processors::Placed;
use crate::runtime::Tasks;

/// How the process ended, as the kernel told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCause {
    Code(i32),
    Signal(i32),
}

#[derive(Clone, Debug)]
pub struct Exit {
    pub cause: ExitCause,
    /// The kernel killed it for want of memory, or V8 gave up for that reason.
    pub out_of_memory: bool,
    /// The last of its standard error. Hostile text: for diagnosis only.
    pub stderr: String,
    /// The first of its standard output.
    pub stdout: Vec<u8>,
    pub usage: GroupUsage,
}

impl Exit {
    /// In words. What the process itself printed is hostile and may be confidential, so it is not
    /// part of it.
    pub fn describe(&self) -> String {
        match self.cause {
            _ if self.out_of_memory => "ran out of memory".to_owned(),
            ExitCause::Code(code) => format!("ended with code {code}"),
            ExitCause::Signal(nix::libc::SIGSYS) => "was ended for a forbidden system call".to_owned(),
            ExitCause::Signal(signal) => format!("was ended by signal {signal}"),
        }
    }

    /// The same with what the process printed, for whoever wrote its code.
    pub fn diagnosis(&self) -> String {
        match self.stderr.trim() {
            "" => self.describe(),
            text => format!("{}: {text}", self.describe()),
        }
    }
}

/// A handle on a running process; dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    name: String,
    meter: Meter,
    kill: DropGuard,
}

/// Reads what a process used; it does not keep the process.
#[derive(Clone, Debug)]
pub struct Meter {
    pid: u32,
    group: Option<Arc<Group>>,
    exit: watch::Receiver<Option<Arc<Exit>>>,
}

/// What belongs to a process and is released after it, or at once when it could not be started.
pub struct Belongings {
    pub group: Option<Arc<Group>>,
    pub identity: Option<Leased>,
    #[expect(dead_code, reason = "held, and removed when dropped")]
    pub folder: Option<TemporaryFolder>,
    pub stdout_bytes_max: usize,
}

impl Drop for Belongings {
    fn drop(&mut self) {
        if let Some(group) = &self.group {
            group.remove();
        }
    }
}

impl Process {
    pub fn watch(
        tasks: &Tasks,
        name: String,
        child: Child,
        outputs: Outputs,
        belongings: Belongings,
    ) -> Process {
        let kill = CancellationToken::new();
        let (publish, exit) = watch::channel(None);
        let group = belongings.group.clone();
        let killed = kill.clone();
        let label = name.clone();
        let pid = child.id();
        tasks.spawn(async move {
            let exit = run(child, outputs, &belongings, killed).await;
            tracing::debug!(process = label, cause = ?exit.cause, "a jailed process has ended");
            // Nobody may be waiting any more.
            let _ = publish.send(Some(Arc::new(exit)));
            // Removing folders and groups blocks for a moment.
            if tokio::task::spawn_blocking(move || drop(belongings)).await.is_err() {
                tracing::error!("cleaning up after a jailed process panicked");
            }
        });
        Process { name, meter: Meter { pid, group, exit }, kill: kill.drop_guard() }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// What the process used so far.
    pub fn usage(&self) -> GroupUsage {
        self.meter.usage()
    }

    /// The memory that it holds now; without a control group, what an idle process takes.
    pub fn memory_bytes(&self) -> u64 {
        let counted = self.meter.group.as_ref().and_then(|group| group.memory_bytes());
        counted.unwrap_or(limits::PROCESS_BYTES_ESTIMATE)
    }

    /// Itself, for whoever says where it runs.
    pub fn placed(&self) -> Placed {
        Placed::new(Pid::from_raw(self.meter.pid.cast_signed()))
    }

    pub fn reset_peak(&self) {
        if let Some(group) = &self.meter.group {
            group.reset_peak();
        }
    }

    pub fn has_ended(&self) -> bool {
        self.meter.exit.borrow().is_some()
    }

    /// Waits for the end, without causing it.
    pub async fn ended(&self) -> Arc<Exit> {
        published(self.meter.exit.clone()).await
    }

    /// Kills the process and waits until it is reaped.
    pub async fn kill(self) -> Arc<Exit> {
        let Process { meter, kill, .. } = self;
        drop(kill);
        published(meter.exit).await
    }
}

impl Meter {
    /// What the process used so far: as its control group counts, or by what `/proc` says of it.
    pub fn usage(&self) -> GroupUsage {
        if let Some(exit) = self.exit.borrow().as_ref() {
            return exit.usage;
        }
        let counted = self.group.as_ref().map(|group| group.usage()).unwrap_or_default();
        // Version 1 may lack the controller that counts time.
        if counted.cpu.is_zero() { self.told().unwrap_or(counted) } else { counted }
    }

    /// The processor time of that.
    pub fn cpu(&self) -> Duration {
        if let Some(exit) = self.exit.borrow().as_ref() {
            return exit.usage.cpu;
        }
        let counted = self.group.as_ref().map(|group| group.cpu()).unwrap_or_default();
        if counted.is_zero() { self.told().unwrap_or_default().cpu } else { counted }
    }

    /// Lets the other jailed processes have a processor before it, if the kernel can.
    pub fn step_back(&self) -> Option<SteppedBack> {
        self.group.as_ref()?.step_back()
    }

    fn told(&self) -> Option<GroupUsage> {
        proc::usage_of(self.pid)
    }
}

async fn published(mut exit: watch::Receiver<Option<Arc<Exit>>>) -> Arc<Exit> {
    match exit.wait_for(Option::is_some).await {
        Ok(exit) => exit.clone().unwrap_or_else(unknown_exit),
        Err(_) => unknown_exit(),
    }
}

/// The task that watches a process ended without saying how; only a runtime that is being torn down
/// does that.
fn unknown_exit() -> Arc<Exit> {
    Arc::new(Exit {
        cause: ExitCause::Signal(nix::libc::SIGKILL),
        out_of_memory: false,
        stderr: String::new(),
        stdout: Vec::new(),
        usage: GroupUsage::default(),
    })
}

async fn run(mut child: Child, outputs: Outputs, belongings: &Belongings, killed: CancellationToken) -> Exit {
    let wait = async {
        let ended = tokio::select! {
            cause = child.wait() => Some(cause),
            () = killed.cancelled() => None,
        };
        match ended {
            Some(cause) => cause,
            None => {
                child.kill();
                child.wait().await
            }
        }
    };
    let (cause, stderr, stdout) = tokio::join!(
        wait,
        last_of(outputs.stderr, limits::STDERR_BYTES_MAX),
        first_of(outputs.stdout, belongings.stdout_bytes_max)
    );
    let cause = cause.unwrap_or_else(|error| {
        tracing::error!(%error, "cannot wait for a jailed process");
        ExitCause::Signal(nix::libc::SIGKILL)
    });
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let kills = belongings.group.as_ref().map_or(0, |group| group.out_of_memory_kills());
    let gave_up = matches!(cause, ExitCause::Signal(nix::libc::SIGABRT | nix::libc::SIGTRAP))
        && (stderr.contains("heap limit") || stderr.contains("out of memory"));
    Exit {
        cause,
        out_of_memory: kills > 0 || gave_up,
        stderr,
        stdout,
        usage: belongings.group.as_ref().map(|group| group.usage()).unwrap_or_default(),
    }
}

/// Reads to the end and keeps the last `bytes_max` bytes.
async fn last_of(pipe: impl AsyncRead + Unpin, bytes_max: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    drain(pipe, |chunk| {
        kept.extend_from_slice(chunk);
        let excess = kept.len().saturating_sub(bytes_max);
        kept.drain(..excess);
    })
    .await;
    kept
}

/// Reads to the end and keeps the first `bytes_max` bytes.
async fn first_of(pipe: impl AsyncRead + Unpin, bytes_max: usize) -> Vec<u8> {
    let mut kept = Vec::new();
    drain(pipe, |chunk| {
        let room = bytes_max.saturating_sub(kept.len());
        kept.extend_from_slice(&chunk[..room.min(chunk.len())]);
    })
    .await;
    kept
}

async fn drain(mut pipe: impl AsyncRead + Unpin, mut take: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
        take(&buffer[..count]);
    }
}
