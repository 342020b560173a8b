//! Keeps idle processors from sleeping while programs run.
//!
//! An execution is a dozen messages between processes, each waiting a few microseconds for the next. A processor
//! that sleeps in between takes longer to wake than the message takes to be handled, most of all in a virtual
//! machine. Linux lets a process bound the time that processors take to wake (PM QoS, `cpu_dma_latency`). The
//! request holds for a moment after each message, and ends with the supervisor however that ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::config::limits;

/// Where the kernel is asked, and where it says what puts its processors to sleep.
const DEVICE: &str = "/dev/cpu_dma_latency";
const IDLE_DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// The kernel's own default, in microseconds that a processor may take to wake.
const MAY_SLEEP: i32 = 2_000_000_000;

/// How long a processor may take to wake meanwhile. A virtual one polls or halts, and to halt is an exit to the
/// hypervisor. Others have a first state of sleep that they leave in a microsecond or two; were they to poll as
/// well, they would take power from those that work.
fn awake_microseconds(idle_driver: &str) -> i32 {
    match idle_driver.trim() {
        "haltpoll" => 0,
        _ => 2,
    }
}

/// Without a request, every call does nothing.
#[derive(Clone)]
pub struct Awake {
    request: Option<Arc<Request>>,
}

struct Request {
    file: File,
    awake_microseconds: i32,
    /// How long after a message processors stay awake.
    moment: Duration,
    /// Until when that is; nothing while they may sleep.
    until: Mutex<Option<Instant>>,
    /// Tells the thread that ends the request that there is one.
    begun: SyncSender<()>,
}

impl Awake {
    /// A kernel that cannot be asked costs speed alone.
    pub fn new(wanted: bool) -> Awake {
        if !wanted {
            return Awake { request: None };
        }
        let idle_driver = std::fs::read_to_string(IDLE_DRIVER).unwrap_or_default();
        let request = Request::open(Path::new(DEVICE), awake_microseconds(&idle_driver), limits::AWAKE_TIME);
        if let Err(error) = &request {
            tracing::info!(%error, device = DEVICE, "idle processors are not kept awake, which makes answers slower");
        }
        Awake { request: request.ok() }
    }

    /// A message is on its way: for a moment processors stay awake.
    pub fn for_a_moment(&self) {
        let Some(request) = &self.request else { return };
        if request.until().replace(Instant::now() + request.moment).is_none() {
            request.begin();
        }
    }
}

impl Request {
    /// A thread of its own ends what is asked for: a timer that is due within the kernel's tick makes every wait
    /// of the thread that has it dearer, which would be the one that relays messages. The thread ends with the
    /// request.
    fn open(device: &Path, awake_microseconds: i32, moment: Duration) -> io::Result<Arc<Request>> {
        let file = OpenOptions::new().write(true).open(device)?;
        let (begun, begins) = sync_channel(1);
        let request = Request { file, awake_microseconds, moment, until: Mutex::new(None), begun };
        // It asks for nothing yet; a device that takes no request is found out now.
        request.ask(MAY_SLEEP)?;
        let request = Arc::new(request);
        let ends = Arc::downgrade(&request);
        std::thread::Builder::new().name("awake".to_owned()).spawn(move || end_each(&begins, &ends))?;
        Ok(request)
    }

    fn begin(&self) {
        if let Err(error) = self.ask(self.awake_microseconds) {
            tracing::debug!(%error, "processors cannot be kept awake");
        }
        // If there is no room, the thread is told already.
        let _ = self.begun.try_send(());
    }

    /// Until when there is something to be awake for; ends the request when there is nothing.
    fn prolonged(&self) -> Option<Instant> {
        let mut until = self.until();
        if until.is_some_and(|until| until > Instant::now()) {
            return *until;
        }
        *until = None;
        if let Err(error) = self.ask(MAY_SLEEP) {
            tracing::warn!(%error, "processors are kept awake until the supervisor ends");
        }
        None
    }

    fn ask(&self, microseconds: i32) -> io::Result<()> {
        self.file.write_all_at(&microseconds.to_ne_bytes(), 0)
    }

    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn end_each(begins: &Receiver<()>, request: &Weak<Request>) {
    while begins.recv().is_ok() {
        while let Some(until) = request.upgrade().and_then(|request| request.prolonged()) {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(device: &Path) -> i32 {
        i32::from_ne_bytes(std::fs::read(device).unwrap().try_into().unwrap())
    }

    #[test]
    fn processors_stay_awake_for_a_moment_after_the_last_message() {
        // With a file in place of the device.
        let device = tempfile::NamedTempFile::new().unwrap();
        let moment = Duration::from_millis(200);
        let request = Request::open(device.path(), 2, moment).unwrap();
        let awake = Awake { request: Some(request) };
        for _ in 0..2 {
            assert_eq!(asked(device.path()), MAY_SLEEP, "nothing runs");
            let mut last = Instant::now();
            let first = last;
            awake.for_a_moment();
            assert_eq!(asked(device.path()), 2);
            while asked(device.path()) == 2 {
                if first.elapsed() < 2 * moment {
                    last = Instant::now();
                    awake.for_a_moment();
                }
                std::thread::yield_now();
            }
            assert!(last.elapsed() >= moment && last - first >= moment, "{:?}", last - first);
        }
    }

    #[test]
    fn nothing_is_asked_where_it_is_not_wanted_or_there_is_nobody_to_ask() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Request::open(&folder.path().join("none"), 0, Duration::ZERO).is_err());
        let awake = Awake::new(false);
        awake.for_a_moment();
        assert!(awake.request.is_none());
    }

    #[test]
    fn only_virtual_processors_poll() {
        assert_eq!(awake_microseconds("haltpoll\n"), 0);
        assert_eq!(awake_microseconds("intel_idle\n"), 2);
        assert_eq!(awake_microseconds(""), 2);
    }
}
