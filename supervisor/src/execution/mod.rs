//! One execution, from the request to the record.
//!
//! ```text
//!  wire body ─► ExecutionRequest ─► Program ─► Permit ─► Lease ─► Outcome ─► Recorded ─► reply
//!               request             analysis   admission  pool     driver     audit
//! ```
//!
//! Each arrow takes the value on its left; there is no other way to make the one on its right.

mod driver;
mod ledger;
mod outcome;
mod record;
mod request;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use outcome::Outcome;
pub use record::Recorded;
pub use request::{ExecutionRequest, RequestRefusal, WireExecution};

use crate::admission::{Admission, Overloaded};
use crate::analysis::{Analysis, AnalysisError};
use crate::audit::Audit;
use crate::clock::now_ms;
use crate::config::limits;
use crate::ids::ExecutionId;
use crate::pool::{Lease, LeaseError, Pool};
use crate::protocol::ErrorDetails;
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
}

/// What executions need.
#[derive(Clone)]
pub struct Executor {
    pub analysis: Analysis,
    pub admission: Admission,
    pub pool: Pool,
    pub audit: Audit,
    pub tasks: Tasks,
}

impl Executor {
    /// Runs a program. `cancel` ends it; the record is written all the same.
    pub async fn execute(
        &self,
        request: ExecutionRequest,
        cancel: CancellationToken,
    ) -> Result<Recorded, ExecutionRefusal> {
        if self.tasks.is_shutting_down() {
            return Err(ExecutionRefusal::ShuttingDown);
        }
        let program = self.analysis.program(request.code()).await?;
        let _permit = self.admission.admit().await?;
        let id = ExecutionId::new();
        let started_at = now_ms();
        let started = Instant::now();
        let environment = Arc::clone(request.environment());
        let Lease { guest, host } = match self.pool.lease(&environment, request.agent()).await {
            Ok(lease) => lease,
            Err(LeaseError::Initialize(error)) => {
                let outcome = outcome::initialize_failed(&error);
                return self.record(id, request, outcome, started_at, started).await;
            }
            Err(error) => return Err(ExecutionRefusal::Start(error)),
        };
        let driven = driver::drive(&id, &request, program, guest, host, cancel).await;
        let agent = request.agent().clone();
        let (recorded, guest) = tokio::join!(
            self.record(id, request, driven.outcome, started_at, started),
            driven.guest_left.proven_idle()
        );
        if let Some(guest) = guest {
            self.pool.give_back_guest(&environment, &agent, guest);
        }
        if let Some(left) = driven.host_left {
            let pool = self.pool.clone();
            if left.has_open_calls() {
                self.tasks.spawn(async move {
                    if let Some(host) = left.settled().await {
                        pool.give_back_host(&environment, &agent, host);
                    }
                });
            } else if let Some(host) = left.settled().await {
                pool.give_back_host(&environment, &agent, host);
            }
        }
        recorded
    }

    async fn record(
        &self,
        id: ExecutionId,
        request: ExecutionRequest,
        outcome: Outcome,
        started_at: i64,
        started: Instant,
    ) -> Result<Recorded, ExecutionRefusal> {
        let recorded =
            Recorded::commit(&self.audit, id, request, outcome, started_at, started.elapsed()).await;
        recorded.map_err(ExecutionRefusal::Audit)
    }
}

/// A guest after its program ended; it must prove that nothing of the program still runs.
pub struct GuestLeft(pub Option<Guest>);

impl GuestLeft {
    async fn proven_idle(self) -> Option<Guest> {
        let mut guest = self.0?;
        let idle = tokio::time::timeout(limits::IDLE_TIME_MAX, guest.connection.receive()).await;
        match idle {
            Ok(Ok(crate::protocol::FromGuest::Idle {})) => {
                guest.executions += 1;
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
}

impl HostLeft {
    pub fn new(host: BoundHost, open_calls: Vec<u32>) -> HostLeft {
        HostLeft { host, open_calls }
    }

    fn has_open_calls(&self) -> bool {
        !self.open_calls.is_empty()
    }

    /// Waits for the answers to open calls; a host that does not give them is ended.
    async fn settled(mut self) -> Option<BoundHost> {
        use crate::protocol::FromHost;
        let answers = async {
            while !self.open_calls.is_empty() {
                let answered = match self.host.receive().await {
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
        self.host.executions += 1;
        settled.then_some(self.host)
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
