//! One execution, from the request to the record.
//!
//! ```text
//!  wire body ─► ExecutionRequest ─► Program ─► Permit ─► Lease ─► Outcome ─► Recorded ─► reply
//!               request             analysis   admission  pool     driver     audit
//! ```
//!
//! Each arrow takes the value on its left; there is no other way to make the one on its right.

mod check;
mod driver;
mod ending;
mod excerpt;
mod ledger;
mod outcome;
mod prepared;
mod record;
mod request;
mod told;
mod unknown;
mod watch;

use std::sync::Arc;
use std::time::Instant;

use analyzer::{EntryKind, Language, Program};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use driver::{Driven, Start};
pub use ledger::{EffectState, Ledger};
use outcome::Outcome;
use prepared::{Prepared, at_once, likely};
pub use record::Recorded;
pub use request::{ExecutionRequest, RequestRefusal, WireExecution};
use watch::Computing;

use crate::admission::{Admission, Overloaded, Pace, Permit, Turn};
use crate::analysis::{Analysis, AnalysisError};
use crate::audit::{Audit, StartRow};
use crate::awake::Awake;
use crate::clock::now_ms;
use crate::config::limits;
use crate::egress::EgressEvent;
use crate::environment::Environment;
use crate::ids::{AgentId, ExecutionId};
use crate::pool::{LeaseError, Pool};
use crate::protocol::{ErrorDetails, FromGuest, FromHost};
use crate::runtime::Tasks;
use crate::store::StoreError;
use crate::worker::{BoundHost, Guest};

/// Why a program did not run.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionRefusal {
    #[error(transparent)]
    Request(#[from] RequestRefusal),
    #[error(transparent)]
    Analysis(#[from] AnalysisError),
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    #[error("no process could be started for the execution: {0}")]
    Start(LeaseError),
    #[error("the execution could not be recorded, so its result is withheld: {0}")]
    Audit(StoreError),
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    #[error("the caller went away before the program started")]
    Cancelled,
}

/// A program that has ended, and what may be left of its processes.
struct Ran {
    id: ExecutionId,
    start: StartRow,
    started: Instant,
    outcome: Outcome,
    guest_left: GuestLeft,
    host_left: Option<HostLeft>,
}

/// What a program is, as clients see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Examination {
    /// Whether it would start.
    valid: bool,
    entry_kind: EntryKind,
    language: Language,
    /// The functions and given values that it uses.
    functions: Vec<String>,
    error: Option<String>,
    error_details: Option<ErrorDetails>,
    warnings: Vec<String>,
}

/// What executions need.
#[derive(Clone)]
pub struct Executor {
    pub analysis: Analysis,
    pub admission: Admission,
    pub pace: Pace,
    pub awake: Awake,
    pub pool: Pool,
    pub audit: Audit,
    pub tasks: Tasks,
}

impl Executor {
    /// Says what would run, without running it. It takes a place as an execution does, and no turn.
    pub async fn examine(&self, request: &ExecutionRequest) -> Result<Examination, ExecutionRefusal> {
        if self.tasks.is_shutting_down() {
            return Err(ExecutionRefusal::ShuttingDown);
        }
        let _place = self.admission.enter(request.agent(), request.priority())?;
        let program = self.analysis.program(request.submission()).await?;
        let error = unknown::error_of(&program.unknown, &request.environment().endowments);
        Ok(Examination {
            valid: error.is_none(),
            entry_kind: program.entry_kind,
            language: program.language,
            functions: program.used.clone(),
            error: error.as_ref().map(|error| format!("{}: {}", error.name, error.message)),
            error_details: error,
            warnings: [request.warnings(), &program.warnings].concat(),
        })
    }

    /// Runs a program. `cancel` ends it; once it has started, the record is written all the same.
    pub async fn execute(
        &self,
        request: ExecutionRequest,
        cancel: CancellationToken,
    ) -> Result<Recorded, ExecutionRefusal> {
        if self.tasks.is_shutting_down() {
            return Err(ExecutionRefusal::ShuttingDown);
        }
        self.awake.for_a_moment();
        let (program, permit, mut announced) = tokio::select! {
            admitted = self.admit(&request) => admitted?,
            () = cancel.cancelled() => return Err(ExecutionRefusal::Cancelled),
        };
        let turn = at_once(&mut announced, self.pace.turn()).await;
        // It is large, and would be moved on its way.
        let run = Box::pin(self.run(&request, &program, announced, cancel, &turn));
        let ran = turn.during(run).await?;
        let Ran { id, start, started, outcome, guest_left, host_left } = ran;
        let (environment, agent) = (Arc::clone(request.environment()), request.agent().clone());
        // The place among those that run is free when the execution is recorded and nothing of it is left.
        let _permit = match host_left {
            Some(left) if left.has_open_calls() => {
                self.settle_later(&id, &environment, &agent, left, permit);
                None
            }
            Some(left) => {
                self.pool.give_back_host(&environment, &agent, left.into_host());
                Some(permit)
            }
            None => Some(permit),
        };
        let take_back_guest = async {
            if let Some(guest) = guest_left.proven_idle(&id).await {
                self.pool.give_back_guest(&environment, &agent, guest);
            }
        };
        let record = Recorded::commit(&self.audit, start, id.clone(), request, program, outcome, started);
        let (recorded, ()) = tokio::join!(record, take_back_guest);
        recorded.map_err(ExecutionRefusal::Audit)
    }

    /// Everything up to the right to run: bounded in number and in time.
    async fn admit(
        &self,
        request: &ExecutionRequest,
    ) -> Result<(Arc<Program>, Permit, Option<Prepared>), ExecutionRefusal> {
        let place = self.admission.enter(request.agent(), request.priority())?;
        self.audit.keep_apart(self.pace.has_a_pair());
        let (program, mut announced) = match self.analysis.known(request.submission()) {
            Ok(program) => (program, None),
            Err(unseen) => {
                let idle = self.pace.idle_processors();
                let likely = if idle > 0 { likely(request, &unseen.submission) } else { None };
                let announced = likely.and_then(|likely| self.announce(request, likely));
                // Where one processor alone is idle, the guest has it.
                (self.analysis.analyze(unseen, announced.is_some() && idle == 1).await?, announced)
            }
        };
        let permit = at_once(&mut announced, self.admission.admit(place)).await?;
        Ok((program, permit, announced))
    }

    /// From the lease to the end of the program.
    async fn run(
        &self,
        request: &ExecutionRequest,
        program: &Program,
        mut announced: Option<Prepared>,
        cancel: CancellationToken,
        turn: &Turn,
    ) -> Result<Ran, ExecutionRefusal> {
        let (started_at, started) = (now_ms(), Instant::now());
        let environment = request.environment();
        let lease = match unknown::error_of(&program.unknown, &environment.endowments) {
            Some(error) => Err(outcome::not_started(error)),
            None => tokio::select! {
                leased = at_once(&mut announced, self.pool.lease(environment, request.agent())) => match leased {
                    Ok(lease) => Ok(lease),
                    Err(error @ LeaseError::Initialize(_)) => Err(outcome::initialize_failed(&error)),
                    Err(error) => return Err(ExecutionRefusal::Start(error)),
                },
                () = cancel.cancelled() => return Err(ExecutionRefusal::Cancelled),
            },
        };
        let Prepared { id, start, record, announced } = match announced {
            Some(announced) => announced,
            None => self.prepare(request, started_at).await?,
        };
        let confirmed = announced.is_some_and(|(likely, withdrawal)| {
            withdrawal.call_off();
            likely.is(program)
        });
        let mut lease = match lease {
            Ok(lease) => lease,
            Err(outcome) => {
                return Ok(Ran { id, start, started, outcome, guest_left: GuestLeft(None), host_left: None });
            }
        };
        if let Some((earlier, events)) = lease.host.take_up(&id) {
            self.record_egress_after(earlier, events);
        }
        let replacement = async { self.pool.guest(environment, request.agent()).await.ok() };
        let with = Start { record, confirmed, turn, awake: &self.awake };
        let driven = driver::drive(&id, request, program, with, lease, cancel, replacement).await;
        let Driven { outcome, guest_left, host_left } = driven;
        Ok(Ran { id, start, started, outcome, guest_left, host_left })
    }

    /// Gives a host back to the pool when the calls that the program left behind have ended.
    fn settle_later(
        &self,
        id: &ExecutionId,
        environment: &Arc<Environment>,
        agent: &AgentId,
        left: HostLeft,
        permit: Permit,
    ) {
        let (executor, id) = (self.clone(), id.clone());
        let (environment, agent) = (Arc::clone(environment), agent.clone());
        self.tasks.spawn(async move {
            let (host, events) = left.settled().await;
            if !events.is_empty() {
                executor.record_egress_after(id, events);
            }
            if let Some(host) = host {
                executor.pool.give_back_host(&environment, &agent, host);
            }
            // Until here the host is one of those that may exist at once.
            drop(permit);
        });
    }

    fn record_egress_after(&self, id: ExecutionId, events: Vec<EgressEvent>) {
        let audit = self.audit.clone();
        self.tasks.spawn(async move { audit.egress_after(id, events).await });
    }
}

/// A guest after its program ended; it must prove that nothing of the program still runs.
pub struct GuestLeft(pub Option<Guest>);

impl GuestLeft {
    async fn proven_idle(self, id: &ExecutionId) -> Option<Guest> {
        let mut guest = self.0?;
        let idle = tokio::time::timeout(limits::IDLE_TIME_MAX, guest.connection.receive()).await;
        match idle {
            Ok(Ok(FromGuest::Idle { execution_id })) if execution_id == id.as_str() => {
                guest.executions += 1;
                // The record is on its way to the disk meanwhile.
                guest.rest();
                Some(guest)
            }
            other => {
                tracing::debug!(process = guest.process.name(), answer = ?other.is_ok(), "a guest was not idle after its program");
                None
            }
        }
    }
}

/// A host after an execution, with the calls that the program did not wait for.
pub struct HostLeft {
    host: BoundHost,
    open_calls: Vec<u32>,
    computing: Computing,
}

impl HostLeft {
    pub fn new(host: BoundHost, open_calls: Vec<u32>, computing: Computing) -> HostLeft {
        HostLeft { host, open_calls, computing }
    }

    fn has_open_calls(&self) -> bool {
        !self.open_calls.is_empty()
    }

    /// Waits for the answers to open calls; a host that does not give them is ended. Also gives back what
    /// its connections did meanwhile.
    async fn settled(mut self) -> (Option<BoundHost>, Vec<EgressEvent>) {
        let mut checks = tokio::time::interval(limits::COMPUTING_CHECK_PERIOD);
        let answers = async {
            while !self.open_calls.is_empty() {
                let answer = tokio::select! {
                    answer = self.host.receive() => answer,
                    _ = checks.tick() => {
                        self.computing.look();
                        continue;
                    }
                };
                let answered = match answer {
                    Ok(
                        FromHost::Returned { call_id, .. } | FromHost::Threw { call_id: Some(call_id), .. },
                    ) => call_id,
                    _ => return false,
                };
                let before = self.open_calls.len();
                self.open_calls.retain(|call_id| *call_id != answered);
                if self.open_calls.len() == before {
                    return false;
                }
            }
            true
        };
        let settled = tokio::time::timeout(limits::LEFT_CALLS_TIME_MAX, answers).await.unwrap_or(false);
        let events = self.host.take_egress_events();
        (settled.then(|| self.into_host()), events)
    }

    fn into_host(mut self) -> BoundHost {
        self.host.executions += 1;
        self.host
    }
}

/// An error that the supervisor itself reports.
fn error_details(name: &str, code: &str, message: String, hint: Option<&str>) -> ErrorDetails {
    ErrorDetails {
        name: name.to_owned(),
        message,
        code: Some(code.to_owned()),
        hint: hint.map(str::to_owned),
        ..ErrorDetails::default()
    }
}
