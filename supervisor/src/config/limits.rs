//! Every limit of the supervisor, with its unit and its reason. Limits of one execution that
//! depend on its policy stand in `profiles/*.toml`, those of a process in `profiles/jail/*.toml`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// Loopback only: requests are not authenticated yet.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3000));

/// Code, input and metadata together, with room for JSON escapes.
pub const EXECUTE_BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Implementation, package.json and a lockfile of a few thousand packages.
pub const ENVIRONMENT_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Submitted code: far more than a model writes, little enough to parse at once.
pub const CODE_BYTES_MAX: usize = 256 * 1024;
/// A contributor's implementation: hand-written code, not a bundle.
pub const IMPLEMENTATION_BYTES_MAX: usize = 1024 * 1024;
pub const PACKAGE_JSON_BYTES_MAX: usize = 256 * 1024;
pub const PACKAGE_LOCK_BYTES_MAX: usize = 6 * 1024 * 1024;
/// Program input and metadata, as JSON.
pub const INPUT_BYTES_MAX: usize = 1024 * 1024;
/// Values that a request gives a program by their names.
pub const CONTEXT_KEYS_MAX: usize = 100;
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Each backend is a listening socket per host process.
pub const BACKENDS_MAX: usize = 32;
/// Environments are held in memory.
pub const ENVIRONMENTS_MAX: usize = 10_000;
/// Time to send a request's head, against slow clients.
pub const REQUEST_HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Budgets of one execution, enforced by the supervisor and, for a clear error, by the harness.
pub const API_CALLS_MAX: u32 = 50;
/// Calls that a program waits for at the same time.
pub const API_CALLS_CONCURRENT_MAX: u32 = 32;
pub const PARAMS_BYTES_MAX: usize = 1024 * 1024;
pub const RESULT_BYTES_MAX: usize = 1024 * 1024;
/// Arrays and objects around a value: readers of JSON commonly stop at 128.
pub const NESTING_MAX: usize = 100;
pub const LOG_ENTRIES_MAX: usize = 100;
pub const LOG_CHARS_MAX: usize = 1000;
/// A log entry is cut in UTF-16 units; in UTF-8 each takes up to three bytes, and a note is added.
pub const LOG_BYTES_MAX: usize = 3 * LOG_CHARS_MAX + 64;

/// A frame from a guest or a host: the largest params or result, and its envelope.
pub const FRAME_FROM_WORKER_BYTES_MAX: usize = RESULT_BYTES_MAX + 64 * 1024;
/// A frame to a worker: the wrapped code and the input.
pub const FRAME_TO_WORKER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Answers that a guest has not read yet; over that no more are fetched for it.
pub const ANSWERS_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How often the processor time of a running program and of its host is looked at.
pub const COMPUTING_CHECK_PERIOD: Duration = Duration::from_millis(50);
/// Which of them has used more for the program steps back for other jailed processes.
pub const SHORT_COMPUTING_TIME: Duration = Duration::from_millis(20);

/// From spawn to `ready`: fifty times what it takes, for a machine under load.
pub const BOOT_TIME_MAX: Duration = Duration::from_secs(10);
/// What a zygote may take to fork, which takes it a millisecond; other starts wait for it.
pub const FORK_TIME_MAX: Duration = Duration::from_secs(2);
/// A zygote is replaced after about as many guests, which have its address layout.
pub const FORKS_PER_ZYGOTE_MAX: u32 = 1_000;
/// How long a start is taken to compute all the time; longer ones wait for something, and others may start.
pub const START_TIME: Duration = Duration::from_secs(1);
/// Loading an implementation and its packages.
pub const LOAD_TIME_MAX: Duration = Duration::from_secs(30);
/// One `Initialize`: it may open connections and fetch tokens.
pub const INITIALIZE_TIME_MAX: Duration = Duration::from_secs(10);
/// One `Deinitialize`; what takes longer is ended.
pub const DEINITIALIZE_TIME_MAX: Duration = Duration::from_secs(5);
/// From the end of a program to `idle`: a guest that takes longer has left something running.
pub const IDLE_TIME_MAX: Duration = Duration::from_millis(500);
/// API calls that a finished program left behind may still end by themselves.
pub const LEFT_CALLS_TIME_MAX: Duration = Duration::from_secs(5);
/// A host that holds so much more than when it was loaded is replaced.
pub const HOST_GROWTH_BYTES_MAX: u64 = 192 * MEGABYTE;
/// What an idle process is taken to hold where no control group counts.
pub const PROCESS_BYTES_ESTIMATE: u64 = 32 * MEGABYTE;
/// A process is replaced after this many executions, against slow leaks.
pub const EXECUTIONS_PER_PROCESS_MAX: u32 = 10_000;
/// Executions that begin at the same time beyond one for each processor: one computes while another waits.
pub const BEGINNING_MORE: usize = 8;
/// How long an execution counts as one that begins, several times what a warm one takes; and how long a call
/// of it may be unanswered meanwhile, if no turn was left when it was made.
pub const BEGINNING_TIME: Duration = Duration::from_millis(6);
pub const CALL_MOMENT: Duration = Duration::from_millis(1);
/// How long after a message idle processors are kept from sleeping; beside a longer wait their waking is short.
pub const AWAKE_TIME: Duration = Duration::from_millis(5);
/// What a guest is let compile before it was analyzed: as many regular expressions of the dearest kind take 0.1 s.
pub const ANNOUNCED_BYTES_MAX: usize = 8 * 1024;
/// What it is told beforehand of input, context and functions.
pub const ANNOUNCED_GIVEN_BYTES_MAX: usize = 32 * 1024;
/// How long an accepted request waits for its turn.
pub const QUEUE_TIME_MAX: Duration = Duration::from_secs(10);
/// One analysis, including the start of an analyzer.
pub const ANALYSIS_TIME_MAX: Duration = Duration::from_secs(10);
/// What is kept of programs that were analyzed before.
pub const KNOWN_PROGRAMS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A whole installation of packages.
pub const INSTALL_TIME_MAX: Duration = Duration::from_secs(300);
pub const INSTALL_CONCURRENT_MAX: usize = 2;
/// Provisionings that are worked on or wait; each may hold a lockfile in memory.
pub const PROVISIONS_MAX: usize = 16;
/// What an installation may write: the largest trees of packages are a tenth of it.
pub const BUILD_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
pub const BUILD_ENTRIES_MAX: u64 = 300_000;
/// Folders in folders; npm itself nests to about twenty.
pub const BUILD_DEPTH_MAX: usize = 100;
/// The guests' startup snapshot; it takes 3 MB.
pub const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often what an installer has written is looked at.
pub const BUILD_CHECK_PERIOD: Duration = Duration::from_millis(500);
/// Packages whose install scripts an environment lets run.
pub const INSTALL_SCRIPTS_MAX: usize = 32;
/// What cancelled executions then take to be recorded.
pub const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// How often idle processes and unused builds are looked for; a look costs microseconds.
pub const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(1);

/// What is kept of a process's standard error, for diagnosis.
pub const STDERR_BYTES_MAX: usize = 8 * 1024;
/// What npm may print; its configuration and its errors fit.
pub const INSTALLER_STDOUT_BYTES_MAX: usize = 256 * 1024;
/// What is kept of another process's standard output; probes answer on it.
pub const STDOUT_BYTES_MAX: usize = 8 * 1024;

pub const MEGABYTE: u64 = 1024 * 1024;
/// Spare guests are kept per memory size, so there are few sizes.
pub const MEMORY_STEP_MEGABYTES: u64 = 16;
pub const HOST_HEAP_MEGABYTES_MAX: u64 = 384;
pub const INSTALLER_HEAP_MEGABYTES_MAX: u64 = 768;
/// Address space that Node reserves as writable for V8's code beside what it uses, for hosts where
/// `RLIMIT_DATA` stands in for a control group.
pub const NODE_CODE_RANGE_BYTES: u64 = 512 * 1024 * 1024;

/// Descriptors that the supervisor must be able to open: connections of clients, two for each
/// connection of a host, and eight for each process.
pub const OPEN_FILES_MIN: u64 = 16 * 1024;

/// Connections of one host to its backends at the same time.
pub const EGRESS_CONNECTIONS_MAX: usize = 64;
pub const EGRESS_CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Lookups of names for one host at the same time; each holds a thread.
pub const EGRESS_LOOKUPS_MAX: usize = 2;
/// Reports of refused addresses at the same time.
pub const EGRESS_REPORTS_MAX: usize = 8;
/// The report of an address that was refused inside a jail: a host name and a port.
pub const EGRESS_REPORT_BYTES_MAX: u64 = 300;
pub const EGRESS_REPORT_TIME_MAX: Duration = Duration::from_secs(1);

/// How much runs at once, and how much is kept for later. An operator may change these.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// Executions at the same time; each holds a guest and a host.
    pub concurrent_max: usize,
    /// Executions that wait for their turn.
    pub queued_max: usize,
    /// Guests and hosts that are kept between executions, and the memory that they may hold together.
    pub idle_processes_max: usize,
    pub idle_bytes_max: u64,
    /// How long they stay.
    pub idle_max: Duration,
    /// What a SIGTERM leaves running executions; after it they are cancelled.
    pub drain_max: Duration,
    /// Guests per policy that are ready for whoever comes next.
    pub spare_guests: usize,
    /// Hosts, loaded and not initialized, for each environment that is in use.
    pub spare_hosts: usize,
    /// Processes that are started at the same time: a start computes all the time.
    pub starts_max: usize,
}

impl Default for Capacity {
    fn default() -> Capacity {
        Capacity {
            concurrent_max: 32,
            queued_max: 256,
            idle_processes_max: 512,
            idle_bytes_max: 1024 * MEGABYTE,
            idle_max: Duration::from_secs(300),
            drain_max: Duration::from_secs(30),
            spare_guests: 4,
            spare_hosts: 2,
            starts_max: processors(),
        }
    }
}

/// The processors that the supervisor and its processes may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
