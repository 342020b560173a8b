//! What makes a zygote of Node: the library that it loads with `process.dlopen` when it has booted.
//!
//! ```text
//!  process.dlopen(seal) ──► serve: wait for a request ──fork──┬─► the zygote waits for the next
//!                                                             └─► the guest: own descriptors, confined ──► returns
//! ```
//!
//! Load first, then empty the world, then accept strangers. Loading does not return in the zygote, and returns
//! in each guest when it is sealed: it has no file, no thread but its own, and no system call but those of
//! computing. Nothing of this library is given to JavaScript.
//!
//! A fork takes the calling thread only, so V8 is told to need no other (`--single-threaded`), and the event loop
//! gets descriptors of its own: what a guest shared with another would be a way between them.

mod sys;

use std::ffi::CStr;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use jail::{Confinement, FromZygote, GuestSeal, JIT_VARIABLE, PROTOCOL_FD, frame, read_frame};
use nix::sys::prctl::set_name;

type Failure = Box<dyn std::error::Error>;

/// The exit code of a zygote or guest that failed here. Its reason stands on the standard error.
const FAILED: i32 = 122;

const ZYGOTE: &CStr = c"zygote";
const GUEST: &CStr = c"guest";

/// Called when the library is loaded, on the main thread. Returns in guests only.
fn load() {
    if let Err(reason) = serve() {
        eprintln!("seal: {reason}");
        sys::exit(FAILED);
    }
}

/// Forks a guest for each request, until the supervisor closes the connection.
fn serve() -> Result<(), Failure> {
    set_name(ZYGOTE)?;
    #[expect(clippy::disallowed_methods, reason = "the one thing that a supervisor tells the seal")]
    let variable = std::env::var_os(JIT_VARIABLE);
    let seal = GuestSeal::prepare(variable.is_none_or(|value| value != "off"))?;
    sys::tidy_memory();
    say(&FromZygote::Ready {})?;
    loop {
        let Some(descriptors) = sys::receive_descriptors()? else { sys::exit(0) };
        match sys::fork() {
            Ok(Some(pid)) => {
                // Before anybody can tell the guest to seal itself.
                drop(descriptors);
                say(&FromZygote::Forked { pid })?;
            }
            Ok(None) => return become_guest(seal, descriptors),
            Err(error) => say(&FromZygote::Failed { reason: error.to_string() })?,
        }
    }
}

/// One frame to the supervisor; a zygote of which nobody hears ends.
fn say(message: &FromZygote) -> Result<(), Failure> {
    Ok(sys::protocol_socket().write_all(&frame(message)?)?)
}

/// Takes the descriptors of its own, waits until the supervisor has put it into its groups and says how it is
/// confined, and is.
fn become_guest(seal: GuestSeal, descriptors: [OwnedFd; 3]) -> Result<(), Failure> {
    set_name(GUEST)?;
    let [socket, stdout, stderr] = descriptors;
    for (descriptor, place) in [(stdout, sys::STDOUT), (stderr, sys::STDERR), (socket, PROTOCOL_FD)] {
        sys::place(descriptor, place)?;
    }
    sys::renew_event_loops()?;
    let confinement: Confinement = read_frame(&*sys::protocol_socket())?;
    Ok(seal.close(&confinement)?)
}
