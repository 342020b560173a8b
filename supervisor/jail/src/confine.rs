//! The steps of confinement, in the only order that works.
//!
//! ```text
//!  Unconfined ──isolate──► Isolated ──restrict_files──► FilesRestricted ──seal──► Sealed ──exec──► the program
//!  spec, fds               cgroup, namespaces, root,    Landlock                  seccomp
//!                          rlimits, uid, capabilities
//! ```
//!
//! A step takes the previous state by value: leaving one out does not compile.
//! Mounting comes before Landlock because a landlocked thread cannot mount; bounding capabilities
//! are dropped before the uid changes because that needs a capability; the death signal is set
//! twice because a change of uid clears it (`PR_SET_PDEATHSIG(2const)`).

use std::convert::Infallible;
use std::ffi::CString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use caps::CapSet;
use jail::{Facts, Kind, Namespace, PROTOCOL_FD, Profile, Programs, Right, Rlimits, Spec};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Uid, getpid, getppid, setgroups, setresgid, setresuid, setsid};

use crate::{root, sys};

/// What did not work, and why; the supervisor shows it to the operator.
#[derive(Debug)]
pub struct Failure {
    step: &'static str,
    source: Box<dyn std::error::Error>,
}

impl Failure {
    pub fn new(step: &'static str, source: impl Into<Box<dyn std::error::Error>>) -> Failure {
        Failure { step, source: source.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}", self.step, self.source)
    }
}

/// Names the step of an error.
trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn std::error::Error>>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|source| Failure::new(step, source))
    }
}

pub struct Unconfined {
    spec: Spec,
    profile: Profile,
}

impl Unconfined {
    /// Puts the protocol socket in its place. Node finds it at its own descriptor and `/dev/null` on
    /// the standard input; the analyzer speaks on its standard input and output, because taking over
    /// any other descriptor would be unsafe code.
    pub fn new(spec: Spec, socket: UnixStream) -> Result<Unconfined, Failure> {
        let profile = Profile::load(spec.kind).step("read the jail profile")?;
        if spec.kind == Kind::Analyzer {
            let output = socket.try_clone().step("share the protocol socket")?;
            sys::place_descriptor(OwnedFd::from(output), 1).step("replace the standard output")?;
            sys::place_descriptor(OwnedFd::from(socket), 0).step("replace the standard input")?;
        } else {
            sys::place_descriptor(OwnedFd::from(socket), PROTOCOL_FD).step("place the protocol socket")?;
            let null = File::open("/dev/null").step("open /dev/null")?;
            sys::place_descriptor(OwnedFd::from(null), 0).step("replace the standard input")?;
        }
        Ok(Unconfined { spec, profile })
    }

    pub fn isolate(self) -> Result<Isolated, Failure> {
        let Unconfined { spec, profile } = self;
        for procs in &spec.cgroups {
            OpenOptions::new()
                .write(true)
                .open(procs)
                .and_then(|mut file| file.write_all(b"0"))
                .step("enter the control group")?;
        }
        die_with_supervisor(&spec)?;
        setsid().step("start a session")?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        SigSet::empty().thread_set_mask().step("clear the signal mask")?;
        sys::reset_signal_actions();
        enter_namespaces(&spec, &profile.namespaces)?;
        if let Some(mount_point) = &spec.root {
            root::enter(mount_point, &spec.grants).step("build the private root")?;
        }
        std::env::set_current_dir(&spec.directory).step("enter the working directory")?;
        sys::close_descriptors_at_exec(FIRST_CLOSED_FD).step("close inherited descriptors")?;
        limit_resources(&profile.rlimits, spec.data_bytes_max)?;
        drop_privileges(&spec)?;
        die_with_supervisor(&spec)?;
        nix::sys::prctl::set_no_new_privs().step("set no_new_privs")?;
        Ok(Isolated { spec, profile })
    }
}

/// Descriptors from here on are not inherited: 0 to 2 and the socket are.
const FIRST_CLOSED_FD: u32 = PROTOCOL_FD.unsigned_abs() + 1;

pub struct Isolated {
    spec: Spec,
    profile: Profile,
}

impl Isolated {
    pub fn restrict_files(self) -> Result<FilesRestricted, Failure> {
        if self.spec.landlock {
            restrict_files(&self.spec, &self.profile).step("restrict files by Landlock")?;
        }
        Ok(FilesRestricted { spec: self.spec, profile: self.profile })
    }
}

pub struct FilesRestricted {
    spec: Spec,
    profile: Profile,
}

impl FilesRestricted {
    /// Installs the system call filter, which knows the addresses of the one allowed execve.
    pub fn seal(self) -> Result<Sealed, Failure> {
        let FilesRestricted { spec, profile } = self;
        let arguments = secret_arguments(&spec).step("place the program's arguments")?;
        let [secret_path, secret_arguments, secret_environment] = arguments.addresses();
        let own_pid = u64::try_from(getpid().as_raw()).step("read the process id")?;
        let facts = Facts { own_pid, secret_path, secret_arguments, secret_environment };
        let filter = profile.filter.for_jit(spec.jit);
        let programs = Programs::compile(&filter, &facts).step("compile the system call filter")?;
        for program in &programs.0 {
            seccompiler::apply_filter(program).step("install the system call filter")?;
        }
        Ok(Sealed { arguments })
    }
}

/// Nothing but `exec` is left to do.
pub struct Sealed {
    arguments: sys::SecretArguments,
}

impl Sealed {
    pub fn exec(self) -> Result<Infallible, Failure> {
        Err(Failure::new("start the program", self.arguments.exec()))
    }
}

fn die_with_supervisor(spec: &Spec) -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the death signal")?;
    if getppid().as_raw() != spec.supervisor_pid {
        return Err(Failure::new("go on", "the supervisor has ended"));
    }
    Ok(())
}

fn enter_namespaces(spec: &Spec, namespaces: &[Namespace]) -> Result<(), Failure> {
    let flag = |namespace: &Namespace| match namespace {
        Namespace::Mount => CloneFlags::CLONE_NEWNS,
        Namespace::Network => CloneFlags::CLONE_NEWNET,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
    };
    let own: CloneFlags = namespaces.iter().map(flag).collect();
    match spec.namespaces {
        jail::Namespaces::None => Ok(()),
        jail::Namespaces::Privileged => unshare(own).step("unshare namespaces"),
        jail::Namespaces::User => {
            let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
            unshare(own | CloneFlags::CLONE_NEWUSER).step("unshare namespaces")?;
            std::fs::write("/proc/self/setgroups", "deny").step("deny setgroups")?;
            std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).step("map the user id")?;
            std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).step("map the group id")
        }
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

fn drop_privileges(spec: &Spec) -> Result<(), Failure> {
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).step("read capabilities")? {
        caps::clear(None, CapSet::Bounding).step("drop bounding capabilities")?;
    }
    if let Some(identity) = spec.identity {
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.uid));
        setgroups(&[]).step("drop groups")?;
        setresgid(gid, gid, gid).step("change the group id")?;
        setresuid(uid, uid, uid).step("change the user id")?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).step("drop capabilities")?;
    }
    Ok(())
}

/// Files (ABI 1) are a hard requirement; what later kernels add is taken where it exists, because
/// seccomp closes the same doors.
fn restrict_files(spec: &Spec, profile: &Profile) -> Result<(), Box<dyn std::error::Error>> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V9))?
        .handle_access(AccessNet::from_all(ABI::V9))?
        .scope(Scope::from_all(ABI::V9))?
        .create()?;
    for grant in &spec.grants {
        let path = grant.inside(spec.root.is_some());
        let Some(allowed) = profile.landlock.get(&grant.access) else {
            return Err(
                format!("a {} may not be given {:?} on {}", spec.kind, grant.access, path.display()).into()
            );
        };
        let rights = rights(allowed, path.is_dir());
        ruleset = ruleset.add_rule(PathBeneath::new(PathFd::new(path)?, rights))?;
    }
    if ruleset.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        return Err("the kernel does not enforce the ruleset".into());
    }
    Ok(())
}

/// The rights of a list that a file can have, or a directory.
fn rights(allowed: &[Right], directory: bool) -> landlock::BitFlags<AccessFs> {
    let right = |right: &Right| match right {
        Right::Execute => AccessFs::Execute,
        Right::ReadFile => AccessFs::ReadFile,
        Right::ReadDir => AccessFs::ReadDir,
        Right::WriteFile => AccessFs::WriteFile,
        Right::Truncate => AccessFs::Truncate,
        Right::MakeReg => AccessFs::MakeReg,
        Right::MakeDir => AccessFs::MakeDir,
        Right::MakeSym => AccessFs::MakeSym,
        Right::MakeSock => AccessFs::MakeSock,
        Right::MakeFifo => AccessFs::MakeFifo,
        Right::RemoveFile => AccessFs::RemoveFile,
        Right::RemoveDir => AccessFs::RemoveDir,
        Right::Refer => AccessFs::Refer,
        Right::ResolveUnix => AccessFs::ResolveUnix,
    };
    let all = allowed.iter().map(right).collect();
    if directory { all } else { all & AccessFs::from_file(ABI::V9) }
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
