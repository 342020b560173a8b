//! Runs one program: relays its calls, keeps its budgets, and decides how it ended.
//!
//! ```text
//!          ┌── log ──► kept
//!  guest ──┼── call ─► checked, entered, forwarded ─► host ─► return/throw ─► guest
//!          └── completed │ threw ──► end
//!  deadline, cancellation, a lost or lying process ──► end
//! ```
//!
//! Both processes are hostile: what they send is checked here, whatever the harness checked before.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

use super::check::{CallBudget, CallCheck, check_call, check_log, check_result};
use super::ledger::{EffectState, Ledger};
use super::outcome::{End, LogEntry, Outcome, Status};
use super::request::ExecutionRequest;
use super::{GuestLeft, HostLeft, error_details};
use crate::audit::Beginning;
use crate::clock::milliseconds;
use crate::config::limits;
use crate::ids::ExecutionId;
use crate::pool::Lease;
use crate::protocol::frame::FrameError;
use crate::protocol::{Budgets, ErrorDetails, FromGuest, FromHost, LogLevel, ToGuest, ToHost, nesting};
use crate::worker::{BoundHost, ExitCause, GroupUsage, Guest, exit_of};

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
    beginning: Beginning,
    lease: Lease,
    cancel: CancellationToken,
    replacement: impl Future<Output = Option<Guest>>,
) -> Driven {
    let Lease { guest, host } = lease;
    // What an earlier execution left is not this one's.
    drop(host.take_egress_events());
    let mut run = Run {
        id: id.to_string(),
        request,
        beginning: Some(beginning),
        guest,
        host,
        ledger: Ledger::default(),
        logs: Vec::new(),
        deadline: tokio::time::Instant::now() + request.time_max(),
        cpu_before: Duration::ZERO,
        heard: false,
        cancel,
    };
    let mut stop = run.until_end(program).await;
    if run.was_killed_unheard(&stop).await
        && let Some(guest) = replacement.await
    {
        run.guest = guest;
        stop = run.until_end(program).await;
    }
    let Run { guest, host, ledger, logs, cpu_before, .. } = run;
    let egress = host.take_egress_events();
    let mut usage = guest.process.usage();
    let open_calls = ledger.open_calls();
    let (end, guest_left, host_left) = settle(stop, guest, host, open_calls, request, &mut usage).await;
    let cpu = usage.cpu.saturating_sub(cpu_before);
    let outcome = Outcome {
        end,
        logs,
        api_call_count: ledger.forwarded(),
        effects: ledger.into_effects(),
        egress,
        cpu_ms: milliseconds(cpu),
        peak_memory_bytes: usage.peak_memory_bytes,
    };
    Driven { outcome, guest_left, host_left }
}

/// How much of a name that a hostile guest made up is recorded.
const NAME_CHARS_MAX: usize = 100;

/// Why the loop ended.
enum Stop {
    Ended(End),
    Timeout,
    CpuTime,
    Cancelled,
    GuestLost(FrameError),
    HostLost(FrameError),
    /// Time ran out, or the caller went away, while a frame to the host was half written.
    HostStalled(Box<Stop>),
}

async fn settle(
    stop: Stop,
    guest: Guest,
    host: BoundHost,
    open_calls: Vec<u32>,
    request: &ExecutionRequest,
    usage: &mut GroupUsage,
) -> (End, GuestLeft, Option<HostLeft>) {
    let gone = GuestLeft(None);
    match stop {
        Stop::Ended(end) => (end, GuestLeft(Some(guest)), Some(HostLeft::new(host, open_calls))),
        Stop::Timeout | Stop::CpuTime | Stop::Cancelled => {
            (stopped(&stop, request), gone, Some(HostLeft::new(host, open_calls)))
        }
        Stop::HostStalled(stop) => (stopped(&stop, request), gone, None),
        Stop::GuestLost(error) => {
            (guest_lost(guest, error, request, usage).await, gone, Some(HostLeft::new(host, open_calls)))
        }
        Stop::HostLost(FrameError::Closed) => {
            let reason = host.into_reason().await;
            tracing::warn!(environment = %request.environment().name(), reason, "a host was lost");
            (End::worker_lost("worker_lost", format!("the environment's process {reason}")), gone, None)
        }
        Stop::HostLost(error) => {
            let message = format!("the environment's process was ended: {error}");
            (End::worker_lost(code_of(&error), message), gone, None)
        }
    }
}

/// The end of a program that was stopped from outside.
fn stopped(stop: &Stop, request: &ExecutionRequest) -> End {
    if matches!(stop, Stop::Cancelled) {
        let message = "the caller went away, or the supervisor was stopped".to_owned();
        return End::failed(Status::Cancelled, "CancelledError", "cancelled", message, None);
    }
    if matches!(stop, Stop::CpuTime) {
        let allowed = request.environment().policy.cpu_time_max.as_millis();
        let message = format!("the program used more than {allowed} ms of processor time");
        let hint = Some("Compute less in one program, or look for a loop that does not end.");
        return End::failed(Status::Timeout, "CpuTimeError", "cpu_time_limit", message, hint);
    }
    let message = format!("the program did not end within {} ms", request.time_max().as_millis());
    let hint = Some("Do less in one program, or make independent calls at the same time with Promise.all.");
    End::failed(Status::Timeout, "TimeoutError", "timeout", message, hint)
}

/// The public code of a connection that ended by its process's fault.
fn code_of(error: &FrameError) -> &'static str {
    match error {
        FrameError::TooLarge { .. } => "frame_too_large",
        FrameError::Garbage(_) => "protocol_violation",
        FrameError::Closed | FrameError::Io(_) => "worker_lost",
    }
}

async fn guest_lost(
    guest: Guest,
    error: FrameError,
    request: &ExecutionRequest,
    usage: &mut GroupUsage,
) -> End {
    let Guest { process, .. } = guest;
    if !matches!(error, FrameError::Closed) {
        tracing::warn!(process = process.name(), %error, "a guest was ended");
        let message = "the program's process broke the protocol and was ended".to_owned();
        return End::worker_lost(code_of(&error), message);
    }
    let Some(exit) = exit_of(&process).await else {
        let message = "the program's process closed its connection and was ended".to_owned();
        return End::worker_lost("worker_lost", message);
    };
    *usage = exit.usage;
    if exit.out_of_memory {
        let megabytes = request.environment().policy.memory_bytes_max / limits::MEGABYTE;
        let message = format!("the program used more than {megabytes} MB of memory");
        return End::failed(
            Status::OutOfMemory,
            "OutOfMemoryError",
            "memory_limit",
            message,
            Some("Hold less data at the same time."),
        );
    }
    tracing::warn!(process = process.name(), end = exit.describe(), "a guest was lost");
    match exit.cause {
        ExitCause::Signal(nix::libc::SIGSYS) => End::worker_lost(
            "forbidden_system_call",
            "the program's process was ended for a system call that no program needs".to_owned(),
        ),
        _ => End::worker_lost("worker_lost", "the program's process ended unexpectedly".to_owned()),
    }
}

struct Run<'a> {
    id: String,
    request: &'a ExecutionRequest,
    /// Until it is written, no call is forwarded.
    beginning: Option<Beginning>,
    guest: Guest,
    host: BoundHost,
    ledger: Ledger,
    logs: Vec<LogEntry>,
    deadline: tokio::time::Instant,
    /// The guest's processor time before the program.
    cpu_before: Duration,
    /// Whether the guest said anything.
    heard: bool,
    cancel: CancellationToken,
}

impl Run<'_> {
    async fn until_end(&mut self, program: &analyzer::Program) -> Stop {
        self.guest.process.reset_peak();
        self.cpu_before = self.guest.process.usage().cpu;
        let cpu_end = self.cpu_before + self.request.environment().policy.cpu_time_max;
        let execute = self.execute_message(program);
        if let Err(stop) = self.tell_guest(&execute).await {
            return stop;
        }
        let mut cpu_checks = tokio::time::interval_at(
            tokio::time::Instant::now() + limits::CPU_TIME_CHECK_PERIOD,
            limits::CPU_TIME_CHECK_PERIOD,
        );
        loop {
            let step = tokio::select! {
                message = self.guest.connection.receive() => match message {
                    Ok(message) => self.on_guest(message).await,
                    Err(error) => Err(Stop::GuestLost(error)),
                },
                message = self.host.receive() => match message {
                    Ok(message) => self.on_host(message).await,
                    Err(error) => Err(Stop::HostLost(error)),
                },
                () = tokio::time::sleep_until(self.deadline) => Err(Stop::Timeout),
                () = self.cancel.cancelled() => Err(Stop::Cancelled),
                _ = cpu_checks.tick() => match self.guest.process.usage().cpu > cpu_end {
                    true => Err(Stop::CpuTime),
                    false => Ok(()),
                },
            };
            if let Err(stop) = step {
                return stop;
            }
        }
    }

    async fn was_killed_unheard(&self, stop: &Stop) -> bool {
        if self.heard || !matches!(stop, Stop::GuestLost(FrameError::Closed)) {
            return false;
        }
        let exit = exit_of(&self.guest.process).await;
        exit.is_some_and(|exit| exit.cause == ExitCause::Signal(nix::libc::SIGKILL) && !exit.out_of_memory)
    }

    fn execute_message(&self, program: &analyzer::Program) -> ToGuest {
        let environment = self.request.environment();
        ToGuest::Execute {
            execution_id: self.id.clone(),
            source: program.source.clone(),
            entry: program.entry,
            lines_before: program.lines_before,
            unbound_calls: program.unbound_calls.clone(),
            functions: environment.endowments.clone(),
            input: self.request.input().to_owned(),
            budgets: Budgets {
                api_calls_max: environment.definition.api_calls_max(),
                api_calls_concurrent_max: environment.definition.api_calls_concurrent_max(),
                params_bytes_max: limits::PARAMS_BYTES_MAX,
                result_bytes_max: limits::RESULT_BYTES_MAX,
                log_entries_max: limits::LOG_ENTRIES_MAX,
                log_chars_max: limits::LOG_CHARS_MAX,
            },
        }
    }

    async fn on_guest(&mut self, message: FromGuest) -> Result<(), Stop> {
        self.heard = true;
        if message.execution_id() != Some(&self.id) {
            return Err(lied("a message of no or another execution"));
        }
        match message {
            FromGuest::Log { level, text, truncated, .. } => self.log(level, text, truncated),
            FromGuest::Call { call_id, name, params, .. } => self.call(call_id, name, params).await,
            FromGuest::Completed { value, .. } => {
                check_result(value.get()).map_err(lied)?;
                Err(Stop::Ended(End::Completed(value)))
            }
            FromGuest::Threw { error, .. } => Err(Stop::Ended(End::Failed { status: Status::Error, error })),
            FromGuest::Ready {} | FromGuest::Idle { .. } => Err(lied("a message out of turn")),
        }
    }

    fn log(&mut self, level: LogLevel, text: String, truncated: bool) -> Result<(), Stop> {
        check_log(self.logs.len(), &text).map_err(lied)?;
        self.logs.push(LogEntry { level, text, truncated });
        Ok(())
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
                self.tell_guest(&ToGuest::Throw { call_id, error }).await
            }
            CallCheck::Forward => {
                self.begin_record().await?;
                self.ledger.begin(call_id, name.clone(), Instant::now());
                self.tell_host(&ToHost::Call { call_id, name, params }).await
            }
        }
    }

    /// A call may have an effect, so there is a record from here on, whatever becomes of this process.
    async fn begin_record(&mut self) -> Result<(), Stop> {
        let Some(beginning) = self.beginning.take() else { return Ok(()) };
        let written = tokio::select! {
            written = beginning.written() => written,
            () = tokio::time::sleep_until(self.deadline) => return Err(Stop::Timeout),
            () = self.cancel.cancelled() => return Err(Stop::Cancelled),
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
                    return self.tell_guest(&ToGuest::Throw { call_id, error }).await;
                }
                self.tell_guest(&ToGuest::Return { call_id, value }).await
            }
            FromHost::Threw { call_id: Some(call_id), error } => {
                self.answered(call_id, EffectState::Threw)?;
                let error = self.with_egress_failure(error);
                self.tell_guest(&ToGuest::Throw { call_id, error }).await
            }
            _ => Err(Stop::HostLost(FrameError::Garbage("a message out of turn".to_owned()))),
        }
    }

    fn answered(&mut self, call_id: u32, state: EffectState) -> Result<(), Stop> {
        if self.ledger.end(call_id, state, Instant::now()) {
            return Ok(());
        }
        Err(Stop::HostLost(FrameError::Garbage("an answer to no open call".to_owned())))
    }

    /// A client in the host only sees its connection end; the reason is known here.
    fn with_egress_failure(&self, mut error: ErrorDetails) -> ErrorDetails {
        if let Some(reason) = self.host.take_egress_failure() {
            error.message = format!("{} (backend {reason})", error.message);
        }
        error
    }

    async fn tell_guest(&mut self, message: &ToGuest) -> Result<(), Stop> {
        tokio::select! {
            sent = self.guest.connection.send(message) => sent.map_err(Stop::GuestLost),
            () = tokio::time::sleep_until(self.deadline) => Err(Stop::Timeout),
            () = self.cancel.cancelled() => Err(Stop::Cancelled),
        }
    }

    async fn tell_host(&mut self, message: &ToHost) -> Result<(), Stop> {
        tokio::select! {
            sent = self.host.send(message) => sent.map_err(Stop::HostLost),
            () = tokio::time::sleep_until(self.deadline) => Err(Stop::HostStalled(Box::new(Stop::Timeout))),
            () = self.cancel.cancelled() => Err(Stop::HostStalled(Box::new(Stop::Cancelled))),
        }
    }
}

fn lied(what: &str) -> Stop {
    Stop::GuestLost(FrameError::Garbage(what.to_owned()))
}
