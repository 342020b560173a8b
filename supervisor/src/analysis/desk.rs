//! One analyzer, and those who wait for its answers.
//!
//! ```text
//!  ask ─► jobs ─► as many as wait are written at once ─► unanswered ─(an answer)─► who asked first
//!                                          ▲                 └─(it ends)─► again, each alone
//!                                          └───────────────────────────────────┘
//! ```
//!
//! To wake a process and to be woken by it costs as much as to read a short program, so those who come while
//! others are answered are asked together. When an analyzer ends in the midst of several, nobody knows which of
//! them it ended with: its last answers may be lost. So each is asked again alone, and only one that is alone is
//! told that it is too complex.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use analyzer::{Answer, FRAME_BYTES_MAX, Request};
use jail::Kind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{AnalysisError, WAITING_STEP_BYTES};
use crate::config::limits;
use crate::processors::{Affinity, Placed};
use crate::protocol::frame::{Connection, FrameError, Postcard};
use crate::runtime::Tasks;
use crate::worker::{self, ExitCause, Launch, LaunchError, Launcher, Process};

/// What an analyzer is asked before it has answered.
const UNANSWERED_MAX: usize = 8;

/// Who waits beyond that waits in front of the queue.
const JOBS_MAX: usize = 64;

pub struct Desk {
    jobs: mpsc::Sender<Job>,
    waiting_bytes: Arc<AtomicUsize>,
}

struct Job {
    request: Request,
    reply: oneshot::Sender<Result<Answer, AnalysisError>>,
    /// Whether the analyzer is to run where it is asked, if this is all that it is asked.
    here: bool,
    /// Whether an analyzer was killed from outside while it had this one.
    was_killed: bool,
}

/// Bytes that are counted as waiting until this is dropped.
struct Waiting {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Waiting {
    fn count(all: &Arc<AtomicUsize>, bytes: usize) -> Waiting {
        all.fetch_add(bytes, Ordering::Relaxed);
        Waiting { all: Arc::clone(all), bytes }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Desk {
    pub fn open(launcher: Launcher, tasks: &Tasks) -> Desk {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let waiting_bytes = Arc::default();
        let clerk = Clerk {
            launcher,
            tasks: tasks.clone(),
            jobs: queue,
            unanswered: VecDeque::new(),
            again: VecDeque::new(),
            waiting_bytes: Arc::clone(&waiting_bytes),
        };
        tasks.spawn_service(clerk.work());
        Desk { jobs, waiting_bytes }
    }

    /// How much is not answered yet, and a step more while an analyzer that ended is replaced.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
    }

    pub async fn ask(&self, request: Request, here: bool) -> Result<Answer, AnalysisError> {
        let bytes = match &request {
            Request::Program(submission) => submission.source.len(),
            Request::Implementation { source } => source.len(),
        };
        let _waiting = Waiting::count(&self.waiting_bytes, bytes);
        let (reply, answer) = oneshot::channel();
        let job = Job { request, reply, here, was_killed: false };
        let answered = async {
            self.jobs.send(job).await.map_err(|_| AnalysisError::Busy)?;
            answer.await.unwrap_or(Err(AnalysisError::Busy))
        };
        // Until those before it are answered, and for itself.
        timeout(2 * limits::ANALYSIS_TIME_MAX, answered).await.unwrap_or(Err(AnalysisError::Busy))
    }
}

/// Who serves a desk.
struct Clerk {
    launcher: Launcher,
    tasks: Tasks,
    jobs: mpsc::Receiver<Job>,
    /// In the order in which they were asked.
    unanswered: VecDeque<Job>,
    /// The one that is to be asked first, or those that an analyzer ended with, one of which may be the reason.
    again: VecDeque<Job>,
    waiting_bytes: Arc<AtomicUsize>,
}

struct Analyzer {
    process: Process,
    connection: Connection<Answer, Request, Postcard>,
    placed: Placed,
}

impl Analyzer {
    /// Keeps it on the processor of this thread, which most likely waits for the answer, or lets it run anywhere.
    fn place(&mut self, here: bool) {
        self.placed.run(if here { Affinity::here() } else { Affinity::Any });
    }

    fn is_usable(&self) -> bool {
        !self.process.has_ended() && self.connection.is_quiet()
    }
}

impl Clerk {
    async fn work(mut self) {
        let mut idle: Option<Analyzer> = None;
        loop {
            tokio::select! {
                biased;
                Some(job) = self.jobs.recv() => self.again.push_back(job),
                // What still comes is served by a new one.
                () = self.tasks.shutting_down(), if idle.is_some() => idle = None,
                () = self.tasks.closing() => return,
            }
            let mut replacing = None;
            while let Some(job) = self.again.pop_front() {
                let analyzer = match idle.take().filter(Analyzer::is_usable) {
                    Some(analyzer) => Ok(analyzer),
                    None => self.start().await,
                };
                match analyzer {
                    Ok(mut analyzer) => {
                        self.put(job, &mut analyzer);
                        idle = self.serve(analyzer).await;
                    }
                    Err(error) => drop(job.reply.send(Err(error.into()))),
                }
                if idle.is_none() {
                    // Short sources go to the other desk meanwhile.
                    replacing.get_or_insert_with(|| Waiting::count(&self.waiting_bytes, WAITING_STEP_BYTES));
                }
            }
        }
    }

    /// Waits for what the analyzer was asked, and asks it more, until nobody waits. Gives it back if it can be
    /// used again.
    async fn serve(&mut self, mut analyzer: Analyzer) -> Option<Analyzer> {
        loop {
            self.ask_more(&mut analyzer);
            match self.unanswered.front() {
                None => return Some(analyzer),
                Some(first) => analyzer.place(first.here && self.unanswered.len() == 1),
            }
            let failure = match timeout(limits::ANALYSIS_TIME_MAX, analyzer.connection.receive()).await {
                Ok(Ok(answer)) => {
                    self.answer(Ok(answer));
                    continue;
                }
                Ok(Err(error)) => Some(error),
                Err(_) => None,
            };
            if self.unanswered.len() > 1 {
                self.again.extend(self.unanswered.drain(..));
            } else if matches!(failure, Some(FrameError::Closed)) {
                self.analyzer_ended(&analyzer).await;
            } else {
                tracing::warn!(error = ?failure, "an analyzer failed");
                self.answer(Err(AnalysisError::TooComplex));
            }
            return None;
        }
    }

    /// One that is asked again is alone; others come together.
    fn ask_more(&mut self, analyzer: &mut Analyzer) {
        while self.unanswered.is_empty()
            && let Some(job) = self.again.pop_front()
        {
            self.put(job, analyzer);
        }
        while self.again.is_empty()
            && self.unanswered.len() < UNANSWERED_MAX
            && let Ok(job) = self.jobs.try_recv()
        {
            self.put(job, analyzer);
        }
    }

    /// Puts a question behind those that wait to be sent, unless nobody wants the answer any more.
    fn put(&mut self, job: Job, analyzer: &mut Analyzer) {
        if job.reply.is_closed() {
            return;
        }
        match analyzer.connection.queue(&job.request) {
            Ok(()) => self.unanswered.push_back(job),
            Err(_) => drop(job.reply.send(Err(AnalysisError::TooComplex))),
        }
    }

    /// The analyzer ended with the one that it was asked.
    async fn analyzer_ended(&mut self, analyzer: &Analyzer) {
        let exit = worker::exit_of(&analyzer.process).await;
        let was_killed = exit
            .as_ref()
            .is_some_and(|exit| exit.cause == ExitCause::Signal(nix::libc::SIGKILL) && !exit.out_of_memory);
        let Some(mut job) = self.unanswered.pop_front() else { return };
        if was_killed && !job.was_killed {
            // From outside, which says nothing about the source.
            job.was_killed = true;
            self.again.push_back(job);
            return;
        }
        if let Some(exit) = exit {
            tracing::info!(end = exit.describe(), "an analyzer gave up on a source");
        }
        let told = if was_killed { AnalysisError::Busy } else { AnalysisError::TooComplex };
        // Who asked may have gone away.
        drop(job.reply.send(Err(told)));
    }

    fn answer(&mut self, answer: Result<Answer, AnalysisError>) {
        if let Some(job) = self.unanswered.pop_front() {
            drop(job.reply.send(answer));
        }
    }

    async fn start(&self) -> Result<Analyzer, LaunchError> {
        let launch = Launch {
            kind: Kind::Analyzer,
            program: worker::Program::Analyzer,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            grants: Vec::new(),
            directory: PathBuf::from("/"),
            program_memory_bytes: 0,
            jit: true,
            stdout_bytes_max: limits::STDOUT_BYTES_MAX,
            folder: None,
        };
        let (process, socket) = self.launcher.launch(launch).await?;
        let connection =
            Connection::new(socket, FRAME_BYTES_MAX, FRAME_BYTES_MAX).map_err(LaunchError::Spawn)?;
        Ok(Analyzer { placed: process.placed(), process, connection })
    }
}
