//! The steps that confine any process, whether it is about to become a program or was forked from one.
//!
//! Their order is that of `exec` and `fork`: namespaces need privileges that go away afterwards; bounding
//! capabilities are dropped before the uid changes because that needs a capability; the death signal is set
//! twice because a change of uid clears it (`PR_SET_PDEATHSIG(2const)`).

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use caps::{CapSet, Capability, CapsHashSet};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getppid, setgroups, setresgid, setresuid};

use crate::{Access, Confinement, Grant, Namespace, Namespaces, Right};

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

impl std::error::Error for Failure {}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot {}: {}", self.step, self.source)
    }
}

/// Names the step of an error.
pub trait Step<T> {
    fn step(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<Box<dyn std::error::Error>>> Step<T> for Result<T, E> {
    fn step(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|source| Failure::new(step, source))
    }
}

pub fn die_with_supervisor(confinement: &Confinement) -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).step("set the death signal")?;
    if getppid().as_raw() != confinement.supervisor_pid {
        return Err(Failure::new("go on", "the supervisor has ended"));
    }
    Ok(())
}

pub fn enter_namespaces(how: Namespaces, namespaces: &[Namespace]) -> Result<(), Failure> {
    let flag = |namespace: &Namespace| match namespace {
        Namespace::Mount => CloneFlags::CLONE_NEWNS,
        Namespace::Network => CloneFlags::CLONE_NEWNET,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
    };
    let own: CloneFlags = namespaces.iter().map(flag).collect();
    match how {
        Namespaces::None => Ok(()),
        Namespaces::Privileged => unshare(own).step("unshare namespaces"),
        Namespaces::User => {
            let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
            unshare(own | CloneFlags::CLONE_NEWUSER).step("unshare namespaces")?;
            std::fs::write("/proc/self/setgroups", "deny").step("deny setgroups")?;
            std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).step("map the user id")?;
            std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).step("map the group id")
        }
    }
}

/// Gives up every capability but `kept`, and takes the process's own user id.
pub fn drop_privileges(confinement: &Confinement, kept: &[String]) -> Result<(), Failure> {
    let kept: CapsHashSet = kept
        .iter()
        .map(|name| name.parse::<Capability>())
        .collect::<Result<_, _>>()
        .step("read the profile")?;
    let held = caps::read(None, CapSet::Permitted).step("read capabilities")?;
    let kept: CapsHashSet = kept.intersection(&held).copied().collect();
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all().difference(&kept) {
            // A kernel that does not know it cannot give it either.
            if caps::has_cap(None, CapSet::Bounding, *capability).unwrap_or(false) {
                caps::drop(None, CapSet::Bounding, *capability).step("drop bounding capabilities")?;
            }
        }
    }
    if let Some(identity) = confinement.identity {
        let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.uid));
        // Otherwise a change from root to another user clears all.
        caps::securebits::set_keepcaps(!kept.is_empty()).step("keep capabilities")?;
        setgroups(&[]).step("drop groups")?;
        setresgid(gid, gid, gid).step("change the group id")?;
        setresuid(uid, uid, uid).step("change the user id")?;
    }
    // An ambient capability must be inheritable, and both survive the exec of a user who is not root.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable, CapSet::Ambient] {
        caps::set(None, set, &kept).step("drop capabilities")?;
    }
    Ok(())
}

/// Files (ABI 1) are a hard requirement; what later kernels add is taken where it exists, because
/// seccomp closes the same doors.
///
/// # Errors
/// When the kernel does not enforce it, or the profile knows no such access.
pub fn restrict_files<'a>(
    allowed: &BTreeMap<Access, Vec<Right>>,
    grants: impl Iterator<Item = (&'a Grant, &'a Path)>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V9))?
        .handle_access(AccessNet::from_all(ABI::V9))?
        .scope(Scope::from_all(ABI::V9))?
        .create()?;
    for (grant, path) in grants {
        let Some(allowed) = allowed.get(&grant.access) else {
            let kind = "a process of this kind may not be given";
            return Err(format!("{kind} {:?} on {}", grant.access, path.display()).into());
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
