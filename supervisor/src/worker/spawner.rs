//! The one thread that starts processes.
//!
//! The death signal that jail-exec asks for fires when the *thread* that started it ends
//! (`PR_SET_PDEATHSIG(2const)`), and threads of a runtime come and go. This one stays.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// Starts that wait for the thread; each takes about a millisecond.
const QUEUE_MAX: usize = 64;

struct Start {
    socket: OwnedFd,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// A handle on the thread.
#[derive(Clone)]
pub struct Spawner {
    starts: mpsc::Sender<Start>,
}

impl Spawner {
    /// Must be called within a tokio runtime, which then looks after the children.
    pub fn new(jail_exec: PathBuf) -> io::Result<Spawner> {
        let (starts, queue) = mpsc::channel(QUEUE_MAX);
        let runtime = Handle::current();
        std::thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || run(&jail_exec, queue, &runtime))?;
        Ok(Spawner { starts })
    }

    /// Starts jail-exec with `socket` as its standard input, and with pipes as its outputs.
    pub async fn spawn(&self, socket: OwnedFd) -> io::Result<Child> {
        let (reply, answer) = oneshot::channel();
        let gone = |_| io::Error::other("the spawner thread has ended");
        self.starts.send(Start { socket, reply }).await.map_err(|_| gone(()))?;
        answer.await.map_err(|_| gone(()))?
    }
}

fn run(jail_exec: &PathBuf, mut queue: mpsc::Receiver<Start>, runtime: &Handle) {
    let _inside = runtime.enter();
    while let Some(Start { socket, reply }) = queue.blocking_recv() {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that starts processes; it starts jail-exec only"
        )]
        let child = Command::new(jail_exec)
            .env_clear()
            .stdin(Stdio::from(socket))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        // A caller that gave up drops the child, which kills it.
        let _ = reply.send(child);
    }
}
