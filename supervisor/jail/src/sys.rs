//! The system calls that no safe crate wraps, for jail-exec: the only `unsafe` code of this package.
//!
//! jail-exec is single-threaded, and it owns its whole process.
#![expect(unsafe_code, reason = "system calls without a safe wrapper; each function states why it is sound")]

use std::ffi::CString;
use std::io;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::libc;

/// The standard input as a stream socket. `jail-exec` calls it once, before anything else.
pub fn standard_input_socket() -> UnixStream {
    // SAFETY: descriptor 0 is open at the start of the process (POSIX), and the only caller is the
    // first line of `main`, so nothing else owns it.
    UnixStream::from(unsafe { OwnedFd::from_raw_fd(0) })
}

/// Puts `descriptor` at number `target`, without the close-on-exec flag (`dup2(2)`, `fcntl(2)`).
pub fn place_descriptor(descriptor: OwnedFd, target: RawFd) -> io::Result<()> {
    let number = descriptor.into_raw_fd();
    if number == target {
        // SAFETY: F_SETFD touches no memory, and the process owns the descriptor.
        return check(unsafe { libc::fcntl(number, libc::F_SETFD, 0) });
    }
    // SAFETY: dup2 touches no memory. The process owns `number`, and whatever stood at `target` is
    // one of the descriptors that main replaces on purpose.
    check(unsafe { libc::dup2(number, target) })?;
    // SAFETY: `number` was taken out of its owner above and is closed once.
    check(unsafe { libc::close(number) })
}

/// Marks every descriptor from `first` on as closed at exec (`close_range(2)`, Linux 5.11).
pub fn close_descriptors_at_exec(first: u32) -> io::Result<()> {
    // SAFETY: the call touches no memory and, with CLOEXEC, closes nothing yet.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every signal its default action back (`signal(7)`): what the parent ignored stays ignored
/// across exec otherwise.
pub fn reset_signal_actions() {
    for number in 1..=64 {
        // SAFETY: SIG_DFL installs no handler, so no code can run in signal context. SIGKILL,
        // SIGSTOP and the C library's own numbers refuse the change, which is what we want.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
}

/// From now on the process, and whatever it starts, takes no processor from another one when it wakes
/// (`SCHED_BATCH` in `sched(7)`).
pub fn wake_without_preempting() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the parameters, which outlive it, and touches no other memory.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) })
}

/// The arguments of the one execve, at addresses that nobody can guess.
pub struct SecretArguments {
    path: *const libc::c_char,
    arguments: *const *const libc::c_char,
    environment: *const *const libc::c_char,
}

impl SecretArguments {
    /// Lays the strings out on fresh pages at `address`, a random page-aligned number.
    pub fn place(
        address: usize,
        path: &CString,
        arguments: &[CString],
        environment: &[CString],
    ) -> io::Result<SecretArguments> {
        let strings = || std::iter::once(path).chain(arguments).chain(environment);
        let pointers = arguments.len() + environment.len() + 2;
        let text_offset = pointers * size_of::<usize>();
        let bytes = text_offset + strings().map(|string| string.as_bytes_with_nul().len()).sum::<usize>();
        // SAFETY: MAP_FIXED_NOREPLACE never replaces an existing mapping, so no memory that Rust
        // knows of changes.
        let base = unsafe {
            libc::mmap(
                address as *mut libc::c_void,
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut text = base.cast::<u8>().wrapping_add(text_offset);
        let mut addresses = Vec::with_capacity(strings().count());
        for string in strings() {
            let source = string.as_bytes_with_nul();
            // SAFETY: `bytes` sums up the pointer table and every string, so `text` stays inside the
            // fresh mapping, which overlaps no Rust object.
            unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), text, source.len()) };
            addresses.push(text.cast_const().cast::<libc::c_char>());
            text = text.wrapping_add(source.len());
        }
        let table = base.cast::<*const libc::c_char>();
        let (first, rest) = addresses.split_at(1);
        let (argument_addresses, environment_addresses) = rest.split_at(arguments.len());
        let null = [std::ptr::null()];
        for (index, pointer) in
            argument_addresses.iter().chain(&null).chain(environment_addresses).chain(&null).enumerate()
        {
            // SAFETY: the table holds exactly `pointers` entries at the page-aligned start.
            unsafe { table.wrapping_add(index).write(*pointer) };
        }
        Ok(SecretArguments {
            path: first[0],
            arguments: table.cast_const(),
            environment: table.wrapping_add(arguments.len() + 1).cast_const(),
        })
    }

    /// The three values that the filter compares: path, arguments, environment.
    pub fn addresses(&self) -> [u64; 3] {
        [self.path.addr() as u64, self.arguments.addr() as u64, self.environment.addr() as u64]
    }

    /// Becomes the program (`execve(2)`); returns only when that failed.
    pub fn exec(&self) -> io::Error {
        // SAFETY: `place` laid out a NUL-terminated path and two NULL-terminated tables of
        // NUL-terminated strings, all on pages that nobody unmaps.
        unsafe { libc::execve(self.path, self.arguments, self.environment) };
        io::Error::last_os_error()
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
