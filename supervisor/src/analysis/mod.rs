//! Asks the jailed analyzer what a source is. The supervisor itself never parses JavaScript.
//!
//! An analyzer answers one request at a time and stays for the next. A source that makes it abort
//! (deep nesting overflows its stack) costs that request and a new process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use analyzer::{Answer, FRAME_BYTES_MAX, Implementation, Program, Request, Submission, Violation};
use jail::Kind;
use tokio::sync::{Mutex, Semaphore};

use crate::config::limits;
use crate::protocol::frame::{Connection, FrameError};
use crate::worker::{self, ExitCause, Launch, LaunchError, Launcher, Process};

/// Analyzers at the same time.
const ANALYZERS_MAX: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// The caller's doing.
    #[error("the source is refused")]
    Refused(Vec<Violation>),
    /// The analyzer gave up on it, which only a hostile source brings about.
    #[error("the source is nested too deeply, or takes too long to read")]
    TooComplex,
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the analyzer sent an answer to another question")]
    OutOfTurn,
    #[error("all analyzers are busy: try again in a moment")]
    Busy,
}

#[derive(Clone)]
pub struct Analysis {
    launcher: Launcher,
    permits: Arc<Semaphore>,
    /// Nothing once it is closed: an analyzer that comes back then is ended.
    idle: Arc<Mutex<Option<Vec<Analyzer>>>>,
}

struct Analyzer {
    process: Process,
    connection: Connection<Answer, Request>,
}

impl Analyzer {
    fn is_usable(&self) -> bool {
        !self.process.has_ended() && self.connection.is_quiet()
    }
}

/// What came of one question to one analyzer.
enum Attempt {
    Answered(Answer),
    Killed,
}

impl Analysis {
    pub fn new(launcher: Launcher) -> Analysis {
        Analysis {
            launcher,
            permits: Arc::new(Semaphore::new(ANALYZERS_MAX)),
            idle: Arc::new(Mutex::new(Some(Vec::new()))),
        }
    }

    /// How a submitted program is run.
    pub async fn program(&self, submission: Submission) -> Result<Program, AnalysisError> {
        match self.ask(Request::Program(submission)).await? {
            Answer::Program(program) => Ok(program),
            Answer::Refused { violations } => Err(AnalysisError::Refused(violations)),
            Answer::Implementation(_) => Err(AnalysisError::OutOfTurn),
        }
    }

    /// What an implementation declares.
    pub async fn implementation(&self, source: &str) -> Result<Implementation, AnalysisError> {
        match self.ask(Request::Implementation { source: source.to_owned() }).await? {
            Answer::Implementation(implementation) => Ok(implementation),
            Answer::Refused { violations } => Err(AnalysisError::Refused(violations)),
            Answer::Program(_) => Err(AnalysisError::OutOfTurn),
        }
    }

    async fn ask(&self, request: Request) -> Result<Answer, AnalysisError> {
        let turn = tokio::time::timeout(limits::ANALYSIS_TIME_MAX, self.permits.acquire());
        let Ok(Ok(_permit)) = turn.await else { return Err(AnalysisError::Busy) };
        match self.attempt(&request).await? {
            Attempt::Answered(answer) => Ok(answer),
            // Killed from outside, which says nothing about the source.
            Attempt::Killed => match self.attempt(&request).await? {
                Attempt::Answered(answer) => Ok(answer),
                Attempt::Killed => Err(AnalysisError::Busy),
            },
        }
    }

    async fn attempt(&self, request: &Request) -> Result<Attempt, AnalysisError> {
        let idle = self.idle.lock().await.as_mut().and_then(Vec::pop).filter(Analyzer::is_usable);
        let mut analyzer = match idle {
            Some(analyzer) => analyzer,
            None => self.start().await?,
        };
        let exchange = async {
            analyzer.connection.send(request).await?;
            analyzer.connection.receive().await
        };
        match tokio::time::timeout(limits::ANALYSIS_TIME_MAX, exchange).await {
            Ok(Ok(answer)) => {
                if let Some(idle) = self.idle.lock().await.as_mut() {
                    idle.push(analyzer);
                }
                Ok(Attempt::Answered(answer))
            }
            Ok(Err(FrameError::Closed)) => {
                let Some(exit) = worker::exit_of(&analyzer.process).await else {
                    return Err(AnalysisError::TooComplex);
                };
                if exit.cause == ExitCause::Signal(nix::libc::SIGKILL) && !exit.out_of_memory {
                    return Ok(Attempt::Killed);
                }
                tracing::info!(end = exit.describe(), "an analyzer gave up on a source");
                Err(AnalysisError::TooComplex)
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "an analyzer failed");
                Err(AnalysisError::TooComplex)
            }
            Err(_) => Err(AnalysisError::TooComplex),
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
        Ok(Analyzer { process, connection: Connection::new(socket, FRAME_BYTES_MAX, FRAME_BYTES_MAX) })
    }

    /// Ends the analyzers that wait for work, and those that work when they have answered.
    pub async fn close(&self) {
        *self.idle.lock().await = None;
    }
}
