//! A child process of the supervisor, whoever made it: jail-exec at its start, or a zygote.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::net::unix::pipe;

use super::process::ExitCause;

/// Dropping it kills and reaps the process. Until then its number stands for nobody else.
pub struct Child {
    pid: Pid,
    /// A pidfd, readable when the process has ended. It is waited for as a pipe is: the runtime's general way
    /// is unsafe code.
    end: pipe::Receiver,
    reaped: bool,
}

/// What the supervisor keeps of a child's standard outputs.
pub struct Outputs {
    pub stdout: pipe::Receiver,
    pub stderr: pipe::Receiver,
}

/// The child's ends: its protocol socket and its standard outputs.
pub struct Ends {
    pub socket: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// A child that was just made and that nobody waits for; dropping it kills and reaps it too.
pub struct Unwatched {
    pid: Option<Pid>,
}

impl Unwatched {
    pub fn of(pid: i32) -> Unwatched {
        Unwatched { pid: Some(Pid::from_raw(pid)) }
    }

    /// Must be called within a tokio runtime.
    pub fn watch(mut self) -> io::Result<Child> {
        let pid = self.pid.ok_or_else(|| io::Error::other("the process is gone"))?;
        let raw = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(Errno::ESRCH)?;
        let end = pipe::Receiver::from_owned_fd_unchecked(pidfd_open(raw, PidfdFlags::NONBLOCK)?)?;
        self.pid = None;
        Ok(Child { pid, end, reaped: false })
    }
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            end_and_reap(pid);
        }
    }
}

impl Child {
    pub fn id(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// Waits for the end and reaps the process.
    pub async fn wait(&mut self) -> io::Result<ExitCause> {
        loop {
            self.end.readable().await?;
            match waitid(Id::Pid(self.pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)? {
                WaitStatus::Exited(_, code) => {
                    self.reaped = true;
                    return Ok(ExitCause::Code(code));
                }
                WaitStatus::Signaled(_, signal, _) => {
                    self.reaped = true;
                    return Ok(ExitCause::Signal(signal as i32));
                }
                // A pidfd that is readable stays so.
                _ => tokio::task::yield_now().await,
            }
        }
    }

    /// Sends SIGKILL; `wait` tells what came of it.
    pub fn kill(&self) {
        // It may have ended in this moment.
        let _ = kill(self.pid, Signal::SIGKILL);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            end_and_reap(self.pid);
        }
    }
}

/// Blocks for the moment that a killed process takes to end.
fn end_and_reap(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    // Nothing else reaps it, so all that can fail is an interruption.
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED) == Err(Errno::EINTR) {}
}

/// A child's ends, and ours: its socket, and what it prints.
pub fn make_ends() -> io::Result<(Ends, tokio::net::UnixStream, Outputs)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (stdout, their_stdout) = io::pipe()?;
    let (stderr, their_stderr) = io::pipe()?;
    let ends = Ends { socket: theirs.into(), stdout: their_stdout.into(), stderr: their_stderr.into() };
    let outputs = Outputs {
        stdout: pipe::Receiver::from_owned_fd(stdout.into())?,
        stderr: pipe::Receiver::from_owned_fd(stderr.into())?,
    };
    Ok((ends, tokio::net::UnixStream::from_std(ours)?, outputs))
}
