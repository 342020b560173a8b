//! The system calls of a zygote and its guests that no safe crate wraps, and the symbol that Node looks for.
//!
//! Everything here is called on the main thread of a Node process, which waits in `process.dlopen` meanwhile.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; each function states why it is sound")]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use jail::PROTOCOL_FD;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

pub const STDOUT: RawFd = 1;
pub const STDERR: RawFd = 2;

/// The entry of an addon (Node-API, `napi_addon_register_func`): called once, on the main thread.
// SAFETY: the name is Node's own for this purpose, so it stands for nothing else in the process.
#[unsafe(no_mangle)]
pub extern "C" fn napi_register_module_v1(_environment: *mut c_void, exports: *mut c_void) -> *mut c_void {
    crate::load();
    exports
}

/// The socket to the supervisor, in the zygote its own and in a guest the guest's. It is never closed.
/// As a file, because that reads and writes with the system calls that a filter allows.
pub fn protocol_socket() -> ManuallyDrop<File> {
    // SAFETY: jail-exec opened the descriptor, `place` may replace it and nothing closes it.
    ManuallyDrop::new(File::from(unsafe { OwnedFd::from_raw_fd(PROTOCOL_FD) }))
}

/// Ends the process at once: what Node does at its end waits for threads that a guest does not have.
pub fn exit(code: c_int) -> ! {
    // SAFETY: _exit runs nothing of the process any more.
    unsafe { libc::_exit(code) }
}

/// Waits for a request: one byte, with as many descriptors as a guest gets. `None` when the supervisor is gone.
pub fn receive_descriptors<const COUNT: usize>() -> io::Result<Option<[OwnedFd; COUNT]>> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut room = nix::cmsg_space!([RawFd; COUNT]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(PROTOCOL_FD, &mut parts, Some(&mut room), flags)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = message {
            descriptors.extend(numbers.into_iter().map(owned));
        }
    }
    let wrong = |_| io::Error::other("a request came without its descriptors");
    descriptors.try_into().map(Some).map_err(wrong)
}

/// Puts what was freed together again and gives whole pages of it back (`malloc_trim(3)`). Left to the forks, each
/// of them would do so when it first frees much, and copy every page that a piece lies in.
pub fn tidy_memory() {
    // SAFETY: the C library takes its own locks, and touches no memory that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Forks a process that becomes a child of this one's parent (`clone(2)`, `CLONE_PARENT`): its id here, and
/// nothing there.
///
/// The C library's own `fork` knows no such child. What it does beside the system call is to prepare its locks
/// and forget the other threads: those wait, and hold none.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: without CLONE_VM the child has memory of its own, and goes on after the call as a fork does.
    let result = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_PARENT | libc::SIGCHLD, 0, 0, 0, 0) };
    match i32::try_from(result) {
        Ok(0) => Ok(None),
        Ok(pid @ 1..) => Ok(Some(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Puts `descriptor` at number `target`, in the place of what stands there (`dup3(2)`).
pub fn place(descriptor: OwnedFd, target: RawFd) -> io::Result<()> {
    // SAFETY: dup3 touches no memory, and nobody in the process owns what stands at `target`: the standard
    // outputs, the protocol socket, or a descriptor of Node's event loop that is renewed.
    check(unsafe { libc::dup3(descriptor.as_raw_fd(), target, libc::O_CLOEXEC) }).map(drop)
}

/// Gives a forked Node event loops of its own: each `epoll` instance is replaced by a new one that looks at the
/// same numbers, and whatever else is open beside the outputs and the protocol socket by an event counter that
/// nobody else has. (Node has opened wake-ups of its loops, pipes for signals, and `/dev/null`; another
/// `/dev/null` is the standard input, whose flags two processes could tell each other something with.)
pub fn renew_event_loops() -> io::Result<()> {
    let (open_max, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let open_max = RawFd::try_from(open_max).map_err(io::Error::other)?;
    // SAFETY: F_GETFD touches no memory.
    let is_open = |number: &RawFd| unsafe { libc::fcntl(*number, libc::F_GETFD) } >= 0;
    let kept = [STDOUT, STDERR, PROTOCOL_FD];
    let open: Vec<RawFd> = (0..open_max).filter(|number| !kept.contains(number) && is_open(number)).collect();
    let (loops, others): (Vec<RawFd>, Vec<RawFd>) = open.into_iter().partition(|number| is_epoll(*number));
    let watched: Vec<(RawFd, Vec<RawFd>)> = loops
        .into_iter()
        .map(|epoll| (epoll, others.iter().copied().filter(|number| watches(epoll, *number)).collect()))
        .collect();
    for number in others {
        // SAFETY: eventfd touches no memory.
        let counter = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        place(owned(counter), number)?;
    }
    for (epoll, numbers) in watched {
        // SAFETY: epoll_create1 touches no memory.
        let fresh = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        place(owned(fresh), epoll)?;
        for number in numbers {
            control(epoll, libc::EPOLL_CTL_ADD, number)?;
        }
    }
    Ok(())
}

/// Whether a descriptor is an `epoll` instance: others refuse to be asked as one with EINVAL.
fn is_epoll(number: RawFd) -> bool {
    match control(number, libc::EPOLL_CTL_MOD, PROTOCOL_FD) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(libc::ENOENT),
    }
}

/// Whether an `epoll` instance looks at `number`: then it can be told to do so again.
fn watches(epoll: RawFd, number: RawFd) -> bool {
    control(epoll, libc::EPOLL_CTL_MOD, number).is_ok()
}

/// As libuv registers a descriptor: for reading, under its own number.
fn control(epoll: RawFd, operation: c_int, number: RawFd) -> io::Result<()> {
    let mut event =
        libc::epoll_event { events: libc::EPOLLIN.unsigned_abs(), u64: u64::from(number.unsigned_abs()) };
    // SAFETY: the kernel reads `event` during the call only.
    check(unsafe { libc::epoll_ctl(epoll, operation, number, &raw mut event) }).map(drop)
}

/// A descriptor that the kernel has just opened for us.
fn owned(number: RawFd) -> OwnedFd {
    // SAFETY: every caller has it from the system call that opened it, so nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result >= 0 { Ok(result) } else { Err(io::Error::last_os_error()) }
}
