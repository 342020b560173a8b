//! The one thread that starts processes.
//!
//! The death signal that a jailed process asks for fires when the *thread* that started it ends
//! (`PR_SET_PDEATHSIG(2const)`), and threads of a runtime come and go. This one stays. A process that a zygote
//! forks has the same parent as its zygote.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jail::{FromZygote, read_frame};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::{mpsc, oneshot};

use super::child::{Ends, Unwatched};

/// Starts that wait for the thread; each takes about a millisecond.
const QUEUE_MAX: usize = 64;

/// The connection to a zygote: blocking, for a bounded time. This thread alone speaks on it.
pub struct ZygoteSocket {
    socket: UnixStream,
    /// An answer failed to come: nothing is asked any more.
    broken: AtomicBool,
}

impl ZygoteSocket {
    pub fn new(socket: UnixStream, time_max: Duration) -> io::Result<ZygoteSocket> {
        socket.set_read_timeout(Some(time_max))?;
        socket.set_write_timeout(Some(time_max))?;
        Ok(ZygoteSocket { socket, broken: AtomicBool::new(false) })
    }

    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

struct Start {
    /// jail-exec where there is none.
    zygote: Option<Arc<ZygoteSocket>>,
    ends: Ends,
    reply: oneshot::Sender<io::Result<Unwatched>>,
}

/// A handle on the thread.
#[derive(Clone)]
pub struct Spawner {
    starts: mpsc::Sender<Start>,
}

impl Spawner {
    pub fn new(jail_exec: PathBuf) -> io::Result<Spawner> {
        let (starts, queue) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new().name("spawner".to_owned()).spawn(move || run(&jail_exec, queue))?;
        Ok(Spawner { starts })
    }

    /// Starts jail-exec with the socket as its standard input.
    pub async fn exec(&self, ends: Ends) -> io::Result<Unwatched> {
        self.start(None, ends).await
    }

    /// Lets a zygote fork.
    pub async fn fork(&self, zygote: Arc<ZygoteSocket>, ends: Ends) -> io::Result<Unwatched> {
        self.start(Some(zygote), ends).await
    }

    async fn start(&self, zygote: Option<Arc<ZygoteSocket>>, ends: Ends) -> io::Result<Unwatched> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| io::Error::other("the spawner thread has ended");
        self.starts.send(Start { zygote, ends, reply }).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }
}

fn run(jail_exec: &Path, mut queue: mpsc::Receiver<Start>) {
    while let Some(Start { zygote, ends, reply }) = queue.blocking_recv() {
        let child = match zygote {
            Some(zygote) => fork(&zygote, &ends),
            None => exec(jail_exec, ends),
        };
        // A caller that gave up drops the child, which ends it.
        let _ = reply.send(child);
    }
}

fn exec(jail_exec: &Path, ends: Ends) -> io::Result<Unwatched> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts processes; it starts jail-exec only"
    )]
    let child = Command::new(jail_exec)
        .env_clear()
        .stdin(Stdio::from(ends.socket))
        .stdout(Stdio::from(ends.stdout))
        .stderr(Stdio::from(ends.stderr))
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Unwatched::of(pid))
}

/// One byte with the three descriptors, and the answer. After a failure nothing is asked any more, so that nobody
/// takes a late answer for his own.
fn fork(zygote: &ZygoteSocket, ends: &Ends) -> io::Result<Unwatched> {
    if zygote.is_broken() {
        return Err(io::Error::other("the zygote was given up"));
    }
    let answer =
        exchange(&zygote.socket, ends).inspect_err(|_| zygote.broken.store(true, Ordering::Release))?;
    match answer {
        FromZygote::Forked { pid } => Ok(Unwatched::of(pid)),
        FromZygote::Failed { reason } => Err(io::Error::other(format!("the zygote cannot fork: {reason}"))),
        FromZygote::Ready {} => Err(io::Error::other("the zygote said that it is ready, twice")),
    }
}

fn exchange(mut zygote: &UnixStream, ends: &Ends) -> io::Result<FromZygote> {
    let descriptors: [RawFd; 3] = [ends.socket.as_raw_fd(), ends.stdout.as_raw_fd(), ends.stderr.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(zygote.as_raw_fd(), &[IoSlice::new(&[0])], &message, MsgFlags::MSG_NOSIGNAL, None)?;
    let answer = read_frame(&mut zygote)?;
    if let FromZygote::Forked { pid } = answer {
        // Nobody is killed on the word of a jailed process: only a child of ours can be waited for.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::Pid(Pid::from_raw(pid)), flags)?;
    }
    Ok(answer)
}
