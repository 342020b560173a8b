//! A host: the Node process that holds one environment's functions.
//!
//! ```text
//!  LoadedHost ──initialize(agent)──► BoundHost ──deinitialize──► ended
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::FutureExt as _;
use jail::{Access, Grant, Kind};

use super::grants::places;
use super::launch::{Launch, LaunchError, Program};
use super::launcher::Launcher;
use super::node::{await_ready, exit_of, node_arguments, node_environment, started};
use super::process::{Meter, Process};
use crate::config::limits;
use crate::egress::{Egress, EgressEvent, may_speak_tls};
use crate::ids::{AgentId, ExecutionId};
use crate::protocol::frame::{Connection, FrameError};
use crate::protocol::{ErrorDetails, FromHost, ToHost};

/// What a host loads.
pub struct HostSpec<'a> {
    /// The build folder.
    pub build: &'a Path,
    /// The implementation's file name in it.
    pub file: &'a str,
    pub functions: &'a [String],
    pub backends: &'a BTreeMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the egress of a host cannot be opened: {0}")]
    Egress(#[from] crate::egress::EgressError),
    #[error("{step} threw {}: {}", error.name, error.message)]
    Threw { step: &'static str, error: ErrorDetails },
    #[error("{step} did not end within {seconds} s")]
    Slow { step: &'static str, seconds: u64 },
    #[error("the environment's process {reason}")]
    /// What it printed stands beside: it is for the contributor and not for agents.
    Ended { reason: String, printed: String },
}

/// Loaded, and not yet initialized for anybody.
pub struct LoadedHost {
    link: Link,
}

/// Initialized for one agent.
pub struct BoundHost {
    link: Link,
    /// For whom it is initialized.
    agent: AgentId,
    /// Executions that used it.
    pub executions: u32,
    /// The latest of them.
    latest: Option<ExecutionId>,
    /// The memory that it held before it was initialized.
    loaded_bytes: u64,
}

struct Link {
    process: Process,
    connection: Connection<FromHost, ToHost>,
    egress: Egress,
}

impl LoadedHost {
    pub async fn start(launcher: &Launcher, spec: HostSpec<'_>) -> Result<LoadedHost, HostError> {
        let folder = launcher.worker_folder()?;
        let egress_folder = folder.path().join("egress");
        let egress = launcher.open_egress(&egress_folder, spec.backends.values())?;
        let mut grants = launcher.harness_grants();
        grants.push(Grant::new(&egress_folder, places::EGRESS, Access::Connect));
        grants.push(Grant::new(spec.build, places::ENVIRONMENT, Access::Read));
        let directory = launcher.inside(spec.build, places::ENVIRONMENT);
        let mut environment = node_environment();
        let egress_inside = launcher.inside(&egress_folder, places::EGRESS);
        environment.insert("CLOISTER_EGRESS".to_owned(), egress_inside.to_string_lossy().into_owned());
        if !spec.backends.values().any(|url| may_speak_tls(url)) {
            // To load it takes a third of the boot.
            environment.insert("CLOISTER_EGRESS_TLS".to_owned(), "off".to_owned());
        }
        let mut arguments = node_arguments(limits::HOST_HEAP_MEGABYTES_MAX);
        arguments.extend([launcher.egress_preload(), launcher.script("dist/host.cjs")]);
        let launch = Launch {
            kind: Kind::Host,
            program: Program::Node,
            arguments,
            environment,
            grants,
            directory: directory.clone(),
            program_memory_bytes: 0,
            jit: true,
            stdout_bytes_max: limits::STDOUT_BYTES_MAX,
            folder: Some(folder),
        };
        let (process, socket) = launcher.launch(launch).await?;
        let mut connection =
            Connection::new(socket, limits::FRAME_FROM_WORKER_BYTES_MAX, limits::FRAME_TO_WORKER_BYTES_MAX)
                .map_err(LaunchError::Spawn)?;
        let ready = await_ready(&mut connection, |message| matches!(message, FromHost::Ready {})).await;
        let process = started(Kind::Host, process, ready).await?;
        let link = Link { process, connection, egress };
        let file = directory.join(spec.file).to_string_lossy().into_owned();
        let load = ToHost::Load { file, functions: spec.functions.to_vec() };
        link.request("loading the implementation", &load, limits::LOAD_TIME_MAX, |answer| {
            matches!(answer, FromHost::Loaded {})
        })
        .await
        .map(|link| LoadedHost { link })
    }

    /// Binds the host to an agent.
    pub async fn initialize(
        self,
        agent: &AgentId,
        backends: &BTreeMap<String, String>,
    ) -> Result<BoundHost, HostError> {
        let message = ToHost::Initialize { agent_id: agent.to_string(), backends: backends.clone() };
        let link = self.link;
        let loaded_bytes = link.process.memory_bytes();
        link.request("Initialize", &message, limits::INITIALIZE_TIME_MAX, |answer| {
            matches!(answer, FromHost::Initialized {})
        })
        .await
        .map(|link| BoundHost {
            link,
            agent: agent.clone(),
            executions: 0,
            latest: None,
            loaded_bytes,
        })
    }

    pub fn is_usable(&self) -> bool {
        self.link.is_usable()
    }

    pub fn memory_bytes(&self) -> u64 {
        self.link.process.memory_bytes()
    }
}

impl BoundHost {
    pub fn meter(&self) -> &Meter {
        self.link.process.meter()
    }

    pub fn memory_bytes(&self) -> u64 {
        self.link.process.memory_bytes()
    }

    /// Whether so much memory is so much more than before that it is better replaced.
    pub fn has_grown_to(&self, memory_bytes: u64) -> bool {
        memory_bytes > self.loaded_bytes + limits::HOST_GROWTH_BYTES_MAX
    }

    pub fn is_usable(&self) -> bool {
        self.link.is_usable()
    }

    /// Whether nothing but log entries came since its last answer: one that answered a call that nobody
    /// made is not used again.
    pub fn proves_idle(&mut self) -> bool {
        // `receive` takes log entries out, so one look is enough.
        self.link.receive().now_or_never().is_none()
    }

    pub async fn send(&mut self, message: &ToHost) -> Result<(), FrameError> {
        self.link.connection.send(message).await
    }

    /// The next message that is not a log entry.
    pub async fn receive(&mut self) -> Result<FromHost, FrameError> {
        self.link.receive().await
    }

    /// Why a host whose connection failed is gone.
    pub async fn into_reason(self) -> String {
        reason_of(&self.link.process).await.0
    }

    /// Takes the host over for another agent, if it is bound to one: `Deinitialize`, `Initialize`.
    pub async fn rebind(
        self,
        agent: &AgentId,
        backends: &BTreeMap<String, String>,
    ) -> Result<BoundHost, HostError> {
        if self.agent == *agent {
            return Ok(self);
        }
        let BoundHost { link, executions, latest, loaded_bytes, .. } = self;
        let link = link.deinitialize().await?;
        let bound = LoadedHost { link }.initialize(agent, backends).await?;
        Ok(BoundHost { executions, latest, loaded_bytes, ..bound })
    }

    /// Takes up an execution, and gives back the one before with what the host did since. What it did for
    /// its `Initialize` belongs to the first.
    pub fn take_up(&mut self, execution: &ExecutionId) -> Option<(ExecutionId, Vec<EgressEvent>)> {
        let before = self.latest.replace(execution.clone())?;
        Some((before, self.take_egress_events())).filter(|(_, events)| !events.is_empty())
    }

    /// What its connections did since the last time.
    pub fn take_egress_events(&self) -> Vec<EgressEvent> {
        self.link.egress.take_events()
    }

    /// Why the latest connection to a backend was not made, once.
    pub fn take_egress_failure(&self) -> Option<String> {
        self.link.egress.take_failure()
    }

    /// Lets the environment clean up, then ends the process whatever it answered.
    pub async fn deinitialize(self) {
        let name = self.link.process.name().to_owned();
        match self.link.deinitialize().await {
            Ok(link) => drop(link.process.kill().await),
            Err(error) => {
                tracing::info!(process = name, %error, "a host was ended without having cleaned up")
            }
        }
    }
}

impl Link {
    /// Whether it lives, as far as the kernel has told. It may log at any time, so it need not be quiet.
    fn is_usable(&self) -> bool {
        !self.process.has_ended() && !self.connection.has_closed()
    }

    async fn deinitialize(self) -> Result<Link, HostError> {
        let answered = |answer: &FromHost| matches!(answer, FromHost::Deinitialized {});
        self.request("Deinitialize", &ToHost::Deinitialize {}, limits::DEINITIALIZE_TIME_MAX, answered).await
    }

    async fn receive(&mut self) -> Result<FromHost, FrameError> {
        loop {
            match self.connection.receive().await? {
                FromHost::Log { level, text } => {
                    tracing::debug!(process = self.process.name(), ?level, text, "host log")
                }
                message => return Ok(message),
            }
        }
    }

    /// Sends a request, and gives the link back when the wanted answer came in time.
    async fn request(
        mut self,
        step: &'static str,
        message: &ToHost,
        time_max: std::time::Duration,
        wanted: impl Fn(&FromHost) -> bool,
    ) -> Result<Link, HostError> {
        let exchange = async {
            self.connection.send(message).await?;
            self.receive().await
        };
        match tokio::time::timeout(time_max, exchange).await {
            Err(_) => Err(HostError::Slow { step, seconds: time_max.as_secs() }),
            Ok(Ok(answer)) if wanted(&answer) => Ok(self),
            Ok(Ok(FromHost::Threw { call_id: None, error })) => Err(HostError::Threw { step, error }),
            Ok(Ok(_)) => Err(ended(format!("sent a message out of turn during {step}"), String::new())),
            Ok(Err(FrameError::Closed)) => {
                let (reason, printed) = reason_of(&self.process).await;
                Err(ended(reason, printed))
            }
            Ok(Err(error)) => Err(ended(format!("failed: {error}"), String::new())),
        }
    }
}

fn ended(reason: String, printed: String) -> HostError {
    HostError::Ended { reason, printed }
}

/// Why a process whose connection is closed is gone, and the last that it printed.
async fn reason_of(process: &Process) -> (String, String) {
    match exit_of(process).await {
        Some(exit) => (exit.describe(), exit.stderr.trim().to_owned()),
        None => ("closed its connection".to_owned(), String::new()),
    }
}
