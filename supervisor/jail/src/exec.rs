//! Confinement of a process that is about to become a program.
//!
//! ```text
//!  Unconfined ──isolate──► Isolated ──restrict_files──► FilesRestricted ──seal──► Sealed ──exec──► the program
//!  spec, fds               cgroup, namespaces, root,    Landlock                  seccomp
//!                          rlimits, uid, capabilities
//! ```
//!
//! A step takes the previous state by value: leaving one out does not compile.
//! Mounting comes before Landlock because a landlocked thread cannot mount; `confine` says why the rest has
//! its place.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::unistd::{getpid, setsid};

use crate::confine::{Failure, Step, die_with_supervisor, drop_privileges, enter_namespaces, restrict_files};
use crate::{Blueprint, Facts, Kind, PROTOCOL_FD, Rlimits, Spec, read_frame, root, sys};

/// Reads a spec from the standard input, which is the protocol socket, and becomes its program. It is the
/// first thing that jail-exec does, and returns only when something failed.
pub fn become_program() -> Failure {
    let launch = |mut socket: UnixStream| {
        let spec = read_frame(&mut socket).step("read the spec")?;
        Unconfined::new(spec, socket)?.isolate()?.restrict_files()?.seal()?.exec()
    };
    let Err(failure) = launch(sys::standard_input_socket());
    failure
}

struct Unconfined {
    spec: Spec,
}

impl Unconfined {
    /// Puts the protocol socket in its place. Node finds it at its own descriptor and `/dev/null` on
    /// the standard input; the analyzer speaks on its standard input and output, because taking over
    /// any other descriptor would be unsafe code.
    fn new(spec: Spec, socket: UnixStream) -> Result<Unconfined, Failure> {
        if spec.confinement.kind == Kind::Analyzer {
            let output = socket.try_clone().step("share the protocol socket")?;
            sys::place_descriptor(OwnedFd::from(output), 1).step("replace the standard output")?;
            sys::place_descriptor(OwnedFd::from(socket), 0).step("replace the standard input")?;
        } else {
            sys::place_descriptor(OwnedFd::from(socket), PROTOCOL_FD).step("place the protocol socket")?;
            let null = File::open("/dev/null").step("open /dev/null")?;
            sys::place_descriptor(OwnedFd::from(null), 0).step("replace the standard input")?;
        }
        Ok(Unconfined { spec })
    }

    fn isolate(self) -> Result<Isolated, Failure> {
        let Unconfined { spec } = self;
        let Blueprint { namespaces, rlimits, capabilities, .. } = &spec.blueprint;
        for procs in &spec.cgroups {
            OpenOptions::new()
                .write(true)
                .open(procs)
                .and_then(|mut file| file.write_all(b"0"))
                .step("enter the control group")?;
        }
        if spec.batch {
            // It is a matter of speed: a host that forbids it is served as well.
            let _ = sys::wake_without_preempting();
        }
        die_with_supervisor(&spec.confinement)?;
        setsid().step("start a session")?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        SigSet::empty().thread_set_mask().step("clear the signal mask")?;
        sys::reset_signal_actions();
        enter_namespaces(spec.confinement.namespaces, namespaces)?;
        if let Some(mount_point) = &spec.root {
            root::enter(mount_point, &spec.grants).step("build the private root")?;
        }
        std::env::set_current_dir(&spec.directory).step("enter the working directory")?;
        sys::close_descriptors_at_exec(FIRST_CLOSED_FD).step("close inherited descriptors")?;
        limit_resources(rlimits, spec.data_bytes_max)?;
        drop_privileges(&spec.confinement, capabilities)?;
        die_with_supervisor(&spec.confinement)?;
        nix::sys::prctl::set_no_new_privs().step("set no_new_privs")?;
        Ok(Isolated { spec })
    }
}

/// Descriptors from here on are not inherited: 0 to 2 and the socket are.
const FIRST_CLOSED_FD: u32 = PROTOCOL_FD.unsigned_abs() + 1;

struct Isolated {
    spec: Spec,
}

impl Isolated {
    fn restrict_files(self) -> Result<FilesRestricted, Failure> {
        let Isolated { spec } = self;
        if spec.confinement.landlock {
            let grants = spec.grants.iter().map(|grant| (grant, grant.inside(spec.root.is_some())));
            restrict_files(&spec.blueprint.landlock, grants).step("restrict files by Landlock")?;
        }
        Ok(FilesRestricted { spec })
    }
}

struct FilesRestricted {
    spec: Spec,
}

impl FilesRestricted {
    /// Installs the system call filter, which knows the addresses of the one allowed execve.
    fn seal(self) -> Result<Sealed, Failure> {
        let FilesRestricted { spec } = self;
        let arguments = secret_arguments(&spec).step("place the program's arguments")?;
        let [secret_path, secret_arguments, secret_environment] = arguments.addresses();
        let own_pid = u64::try_from(getpid().as_raw()).step("read the process id")?;
        let facts = Facts { own_pid, secret_path, secret_arguments, secret_environment };
        spec.blueprint.programs.install(&facts).step("install the system call filter")?;
        Ok(Sealed { arguments })
    }
}

/// Nothing but `exec` is left to do.
struct Sealed {
    arguments: sys::SecretArguments,
}

impl Sealed {
    fn exec(self) -> Result<Infallible, Failure> {
        Err(Failure::new("start the program", self.arguments.exec()))
    }
}

/// Soft and hard limit are the same: Node tries to raise a soft limit that is lower.
fn limit_resources(limits: &Rlimits, data_bytes_max: Option<u64>) -> Result<(), Failure> {
    let all = [
        (Resource::RLIMIT_CORE, limits.core_bytes_max),
        (Resource::RLIMIT_NOFILE, limits.open_files_max),
        (Resource::RLIMIT_FSIZE, limits.file_bytes_max),
        (Resource::RLIMIT_MEMLOCK, limits.locked_bytes_max),
        (Resource::RLIMIT_MSGQUEUE, limits.queued_bytes_max),
        (Resource::RLIMIT_STACK, limits.stack_bytes_max),
    ];
    let data = data_bytes_max.map(|bytes| (Resource::RLIMIT_DATA, bytes));
    for (resource, value) in all.into_iter().chain(data) {
        setrlimit(resource, value, value).step("set resource limits")?;
    }
    Ok(())
}

/// A random page-aligned address below 2^46: about 2^34 places, and a wrong guess ends the process.
fn secret_arguments(spec: &Spec) -> Result<sys::SecretArguments, Box<dyn std::error::Error>> {
    let program = CString::new(spec.program.as_os_str().as_encoded_bytes())?;
    let mut arguments = vec![program.clone()];
    for argument in &spec.arguments {
        arguments.push(CString::new(argument.as_str())?);
    }
    let mut environment = Vec::with_capacity(spec.environment.len());
    for (name, value) in &spec.environment {
        environment.push(CString::new(format!("{name}={value}"))?);
    }
    const ATTEMPTS_MAX: usize = 8;
    let mut last = io::Error::other("no random address was free");
    for _ in 0..ATTEMPTS_MAX {
        let mut random = [0; 8];
        getrandom::fill(&mut random)?;
        let address = usize::from_ne_bytes(random) & ((1 << 46) - 1) & !0xfff;
        match sys::SecretArguments::place(address.max(1 << 32), &program, &arguments, &environment) {
            Ok(placed) => return Ok(placed),
            Err(error) => last = error,
        }
    }
    Err(last.into())
}
