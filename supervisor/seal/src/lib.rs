//! The second seal of a guest, which Node loads with `process.dlopen`: loading it *is* sealing.
//!
//! Load first, then empty the world, then accept strangers: after boot and `lockdown()`, and before the
//! first program, every thread gets a filter that leaves computing, sockets that are open, and memory.
//! The process also becomes non-dumpable, so that not even its own user can read it. Nothing of this
//! needs a privilege, and nothing is given to JavaScript.
#![expect(unsafe_code, reason = "the one symbol that Node looks for in an addon")]

use std::ffi::c_void;

use jail::{Facts, Filter, JIT_VARIABLE, Programs};

/// The exit code of a guest that could not be sealed. Its reason stands on stderr.
const FAILED: i32 = 122;

/// The entry of an addon (Node-API, `napi_addon_register_func`): called once, on the main thread.
// SAFETY: the name is Node's own for this purpose, so it stands for nothing else in the process.
#[unsafe(no_mangle)]
pub extern "C" fn napi_register_module_v1(_environment: *mut c_void, exports: *mut c_void) -> *mut c_void {
    if let Err(reason) = seal() {
        eprintln!("seal: {reason}");
        std::process::exit(FAILED);
    }
    exports
}

fn seal() -> Result<(), Box<dyn std::error::Error>> {
    nix::sys::prctl::set_dumpable(false)?;
    let own_pid = u64::from(std::process::id());
    // The one execve is over, so no rule names its addresses.
    let facts = Facts { own_pid, secret_path: 0, secret_arguments: 0, secret_environment: 0 };
    #[expect(clippy::disallowed_methods, reason = "the one thing that a supervisor tells the seal")]
    let variable = std::env::var_os(JIT_VARIABLE);
    let jit = variable.is_none_or(|value| value != "off");
    for program in &Programs::compile(&Filter::sealed()?.for_jit(jit), &facts)?.0 {
        seccompiler::apply_filter_all_threads(program)?;
    }
    Ok(())
}
