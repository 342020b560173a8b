//! How a program ended, once its loop has stopped: which outcome that is, and what is left of the
//! processes.

use super::outcome::{End, Status};
use super::request::ExecutionRequest;
use super::watch::Cause;
use super::{GuestLeft, HostLeft};
use crate::config::limits;
use crate::protocol::frame::FrameError;
use crate::worker::{ExitCause, GroupUsage, Guest, exit_of};

/// Why the loop ended.
pub enum Stop {
    Ended(End),
    Expired(Cause),
    GuestLost(FrameError),
    HostLost(FrameError),
    /// The same, while a frame to the host was half written.
    HostStalled(Cause),
}

pub async fn settle(
    stop: Stop,
    guest: Guest,
    host_left: HostLeft,
    request: &ExecutionRequest,
    usage: &mut GroupUsage,
) -> (End, GuestLeft, Option<HostLeft>) {
    let gone = GuestLeft(None);
    match stop {
        Stop::Ended(end) => (end, GuestLeft(Some(guest)), Some(host_left)),
        Stop::Expired(cause) => (expired(cause, request), gone, Some(host_left)),
        Stop::HostStalled(cause) => (expired(cause, request), gone, None),
        Stop::GuestLost(error) => (guest_lost(guest, error, request, usage).await, gone, Some(host_left)),
        Stop::HostLost(FrameError::Closed) => {
            let reason = host_left.into_host().into_reason().await;
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
fn expired(cause: Cause, request: &ExecutionRequest) -> End {
    match cause {
        Cause::Cancelled => {
            let message = "the caller went away, or the supervisor was stopped".to_owned();
            End::failed(Status::Cancelled, "CancelledError", "cancelled", message, None)
        }
        Cause::CpuTime => {
            let allowed = request.environment().policy.cpu_time_max.as_millis();
            let message = format!("the program used more than {allowed} ms of processor time");
            let hint = Some("Compute less in one program, or look for a loop that does not end.");
            End::failed(Status::Timeout, "CpuTimeError", "cpu_time_limit", message, hint)
        }
        Cause::Deadline => {
            let message = format!("the program did not end within {} ms", request.time_max().as_millis());
            let hint =
                Some("Do less in one program, or make independent calls at the same time with Promise.all.");
            End::failed(Status::Timeout, "TimeoutError", "timeout", message, hint)
        }
    }
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
