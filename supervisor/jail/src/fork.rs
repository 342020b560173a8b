//! Confinement of a guest that was forked from its zygote.
//!
//! It is in its zygote's root and under its zygote's limits and filter. What is added takes away the rest:
//! namespaces of its own, the zygote's capabilities, every file, and all system calls but those of computing.

use nix::unistd::setsid;

use crate::confine::{Failure, Step, die_with_supervisor, drop_privileges, enter_namespaces, restrict_files};
use crate::{Blueprint, Confinement, Facts, Kind, Profile};

/// What a zygote makes ready once for all guests that it will fork.
pub struct GuestSeal(Blueprint);

impl GuestSeal {
    /// Reads the profile and compiles its filter.
    pub fn prepare(jit: bool) -> Result<GuestSeal, Failure> {
        let profile = Profile::load(Kind::Guest).step("read the jail profile")?;
        Blueprint::of(&profile, jit).step("compile the system call filter").map(GuestSeal)
    }

    /// Confines the calling process, which has one thread; its control groups are entered by others.
    pub fn close(self, confinement: &Confinement) -> Result<(), Failure> {
        let GuestSeal(blueprint) = self;
        die_with_supervisor(confinement)?;
        setsid().step("start a session")?;
        enter_namespaces(confinement.namespaces, &blueprint.namespaces)?;
        drop_privileges(confinement, &blueprint.capabilities)?;
        die_with_supervisor(confinement)?;
        if confinement.landlock {
            restrict_files(&blueprint.landlock, std::iter::empty()).step("restrict files by Landlock")?;
        }
        // Not even its own user may look into it.
        nix::sys::prctl::set_dumpable(false).step("hide the process")?;
        // It executes nothing, so its filter names no secret address.
        let own_pid = u64::from(std::process::id());
        let facts = Facts { own_pid, secret_path: 0, secret_arguments: 0, secret_environment: 0 };
        blueprint.programs.install(&facts).step("install the system call filter")
    }
}
