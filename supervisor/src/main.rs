//! The program; everything else is in the library beside it, so that benches can reach its parts.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    supervisor::run()
}
