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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep_until};

use crate::config::limits;
use crate::runtime::Tasks;

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
    tasks: Tasks,
}

struct Request {
    file: File,
    awake_microseconds: i32,
    /// How long the processors stay awake; nothing while they may sleep.
    until: Mutex<Option<Instant>>,
}

impl Awake {
    /// A kernel that cannot be asked costs speed alone.
    pub fn new(wanted: bool, tasks: Tasks) -> Awake {
        if !wanted {
            return Awake { request: None, tasks };
        }
        let idle_driver = std::fs::read_to_string(IDLE_DRIVER).unwrap_or_default();
        let request = Request::open(Path::new(DEVICE), awake_microseconds(&idle_driver));
        if let Err(error) = &request {
            tracing::info!(%error, device = DEVICE, "idle processors are not kept awake, which makes answers slower");
        }
        Awake { request: request.ok().map(Arc::new), tasks }
    }

    /// A message is on its way: for a moment processors stay awake.
    pub fn for_a_moment(&self) {
        let Some(request) = &self.request else { return };
        let until = Instant::now() + limits::AWAKE_TIME;
        if request.until().replace(until).is_none() {
            self.begin(request, until);
        }
    }

    fn begin(&self, request: &Arc<Request>, mut until: Instant) {
        if let Err(error) = request.ask(request.awake_microseconds) {
            tracing::debug!(%error, "processors cannot be kept awake");
        }
        let request = Arc::clone(request);
        self.tasks.spawn(async move {
            loop {
                sleep_until(until).await;
                match request.prolonged() {
                    Some(later) => until = later,
                    None => return,
                }
            }
        });
    }
}

impl Request {
    fn open(device: &Path, awake_microseconds: i32) -> io::Result<Request> {
        let file = OpenOptions::new().write(true).open(device)?;
        let request = Request { file, awake_microseconds, until: Mutex::new(None) };
        // It asks for nothing yet; a device that takes no request is found out now.
        request.ask(MAY_SLEEP)?;
        Ok(request)
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn asked(device: &Path) -> i32 {
        i32::from_ne_bytes(std::fs::read(device).unwrap().try_into().unwrap())
    }

    /// With a file in place of the device.
    fn awake(device: &Path) -> Awake {
        let request = Request::open(device, 2).unwrap();
        Awake { request: Some(Arc::new(request)), tasks: Tasks::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn processors_stay_awake_for_a_moment_after_the_last_message() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let awake = awake(device.path());
        assert_eq!(asked(device.path()), MAY_SLEEP, "nothing runs yet");
        let step = limits::AWAKE_TIME * 3 / 4;
        for _ in 0..4 {
            awake.for_a_moment();
            tokio::time::sleep(step).await;
            assert_eq!(asked(device.path()), 2);
        }
        tokio::time::sleep(limits::AWAKE_TIME - step + Duration::from_millis(1)).await;
        assert_eq!(asked(device.path()), MAY_SLEEP);
        awake.for_a_moment();
        assert_eq!(asked(device.path()), 2, "and again");
        awake.tasks.ended().await;
        assert_eq!(asked(device.path()), MAY_SLEEP, "a shutdown waits for the end of the request");
    }

    #[tokio::test]
    async fn nothing_is_asked_where_it_is_not_wanted_or_there_is_nobody_to_ask() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Request::open(&folder.path().join("none"), 0).is_err());
        let awake = Awake::new(false, Tasks::default());
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
