//! Runs one program: relays its calls, keeps its budgets, and decides how it ended.
//!
//! ```text
//!          ┌── log ──► kept
//!  guest ──┼── call ─► checked, entered, forwarded ─► host ─► return/throw ─► guest
//!          ├── wait ─► after its time: wake ─► guest
//!          └── completed │ threw ──► end
//!  deadline, cancellation, a lost or lying process ──► end
//! ```
//!
//! Both processes are hostile: what they send is checked here, whatever the harness checked before.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::check::{CallBudget, CallCheck, check_call, check_log, check_result};
use super::ending::{Stop, settle};
use super::ledger::{EffectState, Ledger};
use super::outcome::{End, LogEntry, Outcome, Status};
use super::request::ExecutionRequest;
use super::told;
use super::watch::Watch;
use super::{GuestLeft, HostLeft, error_details};
use crate::admission::Turn;
use crate::audit::Beginning;
use crate::awake::Awake;
use crate::clock::milliseconds;
use crate::config::limits;
use crate::ids::ExecutionId;
use crate::pool::Lease;
use crate::protocol::frame::FrameError;
use crate::protocol::{ErrorDetails, FromGuest, FromHost, LogLevel, ToGuest, ToHost, nesting};
use crate::worker::{BoundHost, ExitCause, Guest, exit_of};

/// What an execution has when its program starts.
pub struct Start<'a> {
    pub record: Beginning,
    /// Whether it is what its guest was told, if one was.
    pub confirmed: bool,
    pub turn: &'a Turn,
    pub awake: &'a Awake,
}

/// The outcome, and what may be left of the processes.
pub struct Driven {
    pub outcome: Outcome,
    pub guest_left: GuestLeft,
    pub host_left: Option<HostLeft>,
}

/// `replacement` gives another guest for one that was killed from outside before it said a word: nothing
/// of the program has happened then, so it is run from the start.
pub async fn drive(
    id: &ExecutionId,
    request: &ExecutionRequest,
    program: &analyzer::Program,
    start: Start<'_>,
    lease: Lease,
    cancel: CancellationToken,
    replacement: impl Future<Output = Option<Guest>>,
) -> Driven {
    let Lease { guest, host } = lease;
    let watch = Watch::start(request.time_max(), &request.environment().policy, cancel, &guest, &host);
    let mut run = Run {
        id: id.to_string(),
        request,
        beginning: Some(start.record),
        confirmed: start.confirmed,
        turn: start.turn,
        awake: start.awake,
        patience: None,
        guest,
        host,
        ledger: Ledger::default(),
        logs: Vec::new(),
        watch,
        heard: false,
        alarm: None,
        waits_left: 0,
    };
    let mut stop = run.until_end(program).await;
    if run.was_killed_unheard(&stop).await {
        stop = run.again(program, replacement).await.unwrap_or(stop);
    }
    let Run { guest, host, ledger, logs, watch, .. } = run;
    let egress = host.take_egress_events();
    let mut usage = guest.process.usage();
    let cpu_used = watch.since_start(usage.cpu);
    let open_calls = ledger.open_calls();
    let host_left = HostLeft::new(host, open_calls, watch.into_host());
    let (end, guest_left, host_left) = settle(stop, guest, host_left, request, &mut usage).await;
    let outcome = Outcome {
        end,
        logs,
        api_call_count: ledger.forwarded(),
        effects: ledger.into_effects(),
        egress,
        cpu_ms: milliseconds(cpu_used),
        peak_memory_bytes: usage.peak_memory_bytes,
    };
    Driven { outcome, guest_left, host_left }
}

/// How much of a name that a hostile guest made up is recorded.
const NAME_CHARS_MAX: usize = 100;

struct Run<'a> {
    id: String,
    request: &'a ExecutionRequest,
    /// Until it is written, no call is forwarded.
    beginning: Option<Beginning>,
    confirmed: bool,
    turn: &'a Turn,
    awake: &'a Awake,
    /// When a call that is not answered gives the turn up.
    patience: Option<tokio::time::Instant>,
    guest: Guest,
    host: BoundHost,
    ledger: Ledger,
    logs: Vec<LogEntry>,
    watch: Watch,
    /// Whether the guest said anything.
    heard: bool,
    /// When the guest wants to be woken.
    alarm: Option<tokio::time::Instant>,
    /// How often it may still ask for that: a guest that listens asks once after each message.
    waits_left: u32,
}

/// How much a guest computes between the program and its first word, if there is nothing to compute.
const UNHEARD_CPU_MAX: Duration = Duration::from_millis(20);

impl Run<'_> {
    async fn until_end(&mut self, program: &analyzer::Program) -> Stop {
        let start = match self.confirmed && self.guest.expects(&self.id) {
            true => ToGuest::Confirm { execution_id: self.id.clone() },
            false => ToGuest::Execute(told::execution(&self.id, self.request, program)),
        };
        self.alarm = None;
        if let Err(stop) = self.tell_guest(&start) {
            return stop;
        }
        loop {
            // No more answers are fetched for a guest that does not read those that it has.
            let has_room = self.guest.connection.queued_bytes() <= limits::ANSWERS_BYTES_MAX;
            let (alarm, patience) = (self.alarm, self.patience);
            let step = tokio::select! {
                message = self.guest.connection.receive_or_room(limits::ANSWERS_BYTES_MAX) => match message {
                    Ok(Some(message)) => self.on_guest(message).await,
                    Ok(None) => Ok(()),
                    Err(error) => Err(Stop::GuestLost(error)),
                },
                message = self.host.receive(), if has_room => match message {
                    Ok(message) => self.on_host(message).await,
                    Err(error) => Err(Stop::HostLost(error)),
                },
                () = until(alarm) => self.wake(),
                () = until(patience) => {
                    self.patience = None;
                    self.turn.release();
                    Ok(())
                }
                cause = self.watch.expired() => Err(Stop::Expired(cause)),
            };
            self.awake.for_a_moment();
            if let Err(stop) = step {
                return stop;
            }
        }
    }

    /// Whether the guest was killed from outside before the program could do anything.
    async fn was_killed_unheard(&self, stop: &Stop) -> bool {
        if self.heard || !matches!(stop, Stop::GuestLost(FrameError::Closed)) {
            return false;
        }
        let exit = exit_of(&self.guest.process).await;
        let killed = exit
            .is_some_and(|exit| exit.cause == ExitCause::Signal(nix::libc::SIGKILL) && !exit.out_of_memory);
        killed && self.watch.cpu_used() < UNHEARD_CPU_MAX
    }

    /// Runs the program from the start in another guest, if there is one in time.
    async fn again(
        &mut self,
        program: &analyzer::Program,
        replacement: impl Future<Output = Option<Guest>>,
    ) -> Option<Stop> {
        let guest = tokio::select! {
            guest = replacement => guest?,
            cause = self.watch.expired() => return Some(Stop::Expired(cause)),
        };
        self.watch.follow(&guest);
        self.guest = guest;
        Some(self.until_end(program).await)
    }

    async fn on_guest(&mut self, message: FromGuest) -> Result<(), Stop> {
        self.hear(&message)?;
        match message {
            FromGuest::Log { level, text, truncated, .. } => self.log(level, text, truncated),
            FromGuest::Call { call_id, name, params, .. } => self.call(call_id, name, params).await,
            FromGuest::Wait { ms, .. } => self.set_alarm(ms),
            FromGuest::Completed { value, result_type, .. } => {
                check_result(value.get()).map_err(lied)?;
                Err(Stop::Ended(End::Completed { value, result_type }))
            }
            FromGuest::Threw { error, .. } => Err(Stop::Ended(End::Failed { status: Status::Error, error })),
            FromGuest::Ready {} | FromGuest::Idle { .. } => Err(lied("a message out of turn")),
        }
    }

    fn hear(&mut self, message: &FromGuest) -> Result<(), Stop> {
        self.heard = true;
        if message.execution_id() != Some(&self.id) {
            return Err(lied("a message of no or another execution"));
        }
        Ok(())
    }

    fn log(&mut self, level: LogLevel, text: String, truncated: bool) -> Result<(), Stop> {
        check_log(self.logs.len(), &text).map_err(lied)?;
        self.logs.push(LogEntry { level, text, truncated });
        Ok(())
    }

    fn set_alarm(&mut self, ms: u32) -> Result<(), Stop> {
        self.waits_left = self.waits_left.checked_sub(1).ok_or_else(|| lied("a flood of waits"))?;
        self.alarm = Some(tokio::time::Instant::now() + Duration::from_millis(ms.into()));
        Ok(())
    }

    fn wake(&mut self) -> Result<(), Stop> {
        self.alarm = None;
        self.tell_guest(&ToGuest::Wake { execution_id: self.id.clone() })
    }

    async fn call(&mut self, call_id: u32, name: String, params: Box<RawValue>) -> Result<(), Stop> {
        let definition = &self.request.environment().definition;
        let endowments = &self.request.environment().endowments;
        let budget = CallBudget {
            calls_max: definition.api_calls_max(),
            concurrent_max: definition.api_calls_concurrent_max(),
        };
        match check_call(&self.ledger, endowments, budget, call_id, &name, params.get()) {
            CallCheck::Lie(what) => Err(lied(what)),
            CallCheck::Refuse { code, message } => {
                self.ledger.refuse(call_id, name.chars().take(NAME_CHARS_MAX).collect(), Instant::now());
                let error = error_details("RangeError", code, message, None);
                self.answer(call_id, Err(error))
            }
            CallCheck::Forward => {
                self.begin_record().await?;
                self.ledger.begin(call_id, name.clone(), Instant::now());
                // A timer that is due so soon makes each wait for a message dearer (see `awake`).
                if self.turn.is_wanted() {
                    self.patience = Some(tokio::time::Instant::now() + limits::CALL_MOMENT);
                }
                self.tell_host(&ToHost::Call { call_id, name, params }).await
            }
        }
    }

    /// A call may have an effect, so there is a record from here on, whatever becomes of this process.
    async fn begin_record(&mut self) -> Result<(), Stop> {
        let Some(beginning) = self.beginning.take() else { return Ok(()) };
        let written = tokio::select! {
            written = beginning.written() => written,
            cause = self.watch.expired() => return Err(Stop::Expired(cause)),
        };
        written.map_err(|error| {
            let message =
                format!("no function was called, because the execution cannot be recorded: {error}");
            Stop::Ended(End::failed(Status::Error, "AuditError", "audit_failed", message, None))
        })
    }

    async fn on_host(&mut self, message: FromHost) -> Result<(), Stop> {
        match message {
            FromHost::Returned { call_id, value } => {
                self.answered(call_id, EffectState::Returned)?;
                let refused = if value.get().len() > limits::RESULT_BYTES_MAX {
                    let message =
                        format!("the function returned more than {} bytes", limits::RESULT_BYTES_MAX);
                    Some(("api_result_too_large", message))
                } else if nesting(value.get()) > limits::NESTING_MAX {
                    let message =
                        format!("the function returned more than {} levels of nesting", limits::NESTING_MAX);
                    Some(("nesting_too_deep", message))
                } else {
                    None
                };
                if let Some((code, message)) = refused {
                    let error = error_details("RangeError", code, message, None);
                    return self.answer(call_id, Err(error));
                }
                self.answer(call_id, Ok(value))
            }
            FromHost::Threw { call_id: Some(call_id), error } => {
                self.answered(call_id, EffectState::Threw)?;
                let error = self.with_egress_failure(error);
                self.answer(call_id, Err(error))
            }
            _ => Err(Stop::HostLost(FrameError::Garbage("a message out of turn".to_owned()))),
        }
    }

    fn answered(&mut self, call_id: u32, state: EffectState) -> Result<(), Stop> {
        self.patience = None;
        match self.ledger.end(call_id, state, Instant::now()) {
            true => Ok(()),
            false => Err(Stop::HostLost(FrameError::Garbage("an answer to no open call".to_owned()))),
        }
    }

    /// A client in the host only sees its connection end; the reason is known here.
    fn with_egress_failure(&self, mut error: ErrorDetails) -> ErrorDetails {
        if let Some(reason) = self.host.take_egress_failure() {
            error.message = format!("{} (backend {reason})", error.message);
        }
        error
    }

    fn answer(&mut self, call_id: u32, answer: Result<Box<RawValue>, ErrorDetails>) -> Result<(), Stop> {
        let execution_id = self.id.clone();
        self.tell_guest(&match answer {
            Ok(value) => ToGuest::Return { execution_id, call_id, value },
            Err(error) => ToGuest::Throw { execution_id, call_id, error },
        })
    }

    /// Queues a message, which is sent while the next one is awaited.
    fn tell_guest(&mut self, message: &ToGuest) -> Result<(), Stop> {
        self.waits_left += 1;
        self.guest.connection.queue(message).map_err(Stop::GuestLost)
    }

    async fn tell_host(&mut self, message: &ToHost) -> Result<(), Stop> {
        tokio::select! {
            sent = self.host.send(message) => sent.map_err(Stop::HostLost),
            cause = self.watch.expired() => Err(Stop::HostStalled(cause)),
        }
    }
}

/// The time of an alarm; never, if there is none.
async fn until(alarm: Option<tokio::time::Instant>) {
    match alarm {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn lied(what: &str) -> Stop {
    Stop::GuestLost(FrameError::Garbage(what.to_owned()))
}
