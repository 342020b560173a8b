//! Confinement of a guest that was forked from its zygote.
//!
//! It is in its zygote's root and under its zygote's limits and filter. What is added takes away the rest:
//! namespaces of its own, the zygote's capabilities, every file, and all system calls but those of computing.

use nix::unistd::setsid;

use crate::confine::{Failure, Step, die_with_supervisor, drop_privileges, enter_namespaces, restrict_files};
use crate::{Confinement, Kind, Profile, Programs};

/// What a zygote makes ready once for all guests that it will fork.
pub struct GuestSeal {
    profile: Profile,
    programs: Programs,
}

impl GuestSeal {
    /// Reads the profile and compiles its filter.
    pub fn prepare(jit: bool) -> Result<GuestSeal, Failure> {
        let profile = Profile::load(Kind::Guest).step("read the jail profile")?;
        let filter = profile.filter.clone().for_jit(jit);
        let programs = Programs::compile_ahead(&filter).step("compile the system call filter")?;
        Ok(GuestSeal { profile, programs })
    }

    /// Confines the calling process, which has one thread; its control groups are entered by others.
    pub fn close(self, confinement: &Confinement) -> Result<(), Failure> {
        let GuestSeal { profile, programs } = self;
        die_with_supervisor(confinement)?;
        setsid().step("start a session")?;
        enter_namespaces(confinement.namespaces, &profile.namespaces)?;
        drop_privileges(confinement, &profile.capabilities)?;
        die_with_supervisor(confinement)?;
        if confinement.landlock {
            restrict_files(&profile, std::iter::empty()).step("restrict files by Landlock")?;
        }
        // Not even its own user may look into it.
        nix::sys::prctl::set_dumpable(false).step("hide the process")?;
        for program in &programs.with_own_pid(std::process::id()).0 {
            seccompiler::apply_filter(program).step("install the system call filter")?;
        }
        Ok(())
    }
}
