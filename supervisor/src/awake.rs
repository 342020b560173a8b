//! Keeps idle processors from sleeping while programs run.
//!
//! An execution is a dozen messages between processes, each waiting a few microseconds for the next. A processor
//! that halts in between takes longer to wake than the message takes to be handled, most of all in a virtual
//! machine. Linux lets a process ask that no processor take time to wake (PM QoS, `cpu_dma_latency`); idle
//! ones poll then. The request holds for a moment after each message, and ends with the supervisor however
//! that ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, sleep_until};

use crate::config::limits;
use crate::runtime::Tasks;

/// Microseconds that a processor may take to wake, as the kernel reads them: none, and the kernel's own default.
const AWAKE: i32 = 0;
const MAY_SLEEP: i32 = 2_000_000_000;

/// Without a request, every call does nothing.
#[derive(Clone)]
pub struct Awake {
    request: Option<Arc<Request>>,
    tasks: Tasks,
}

struct Request {
    file: File,
    /// How long the processors stay awake; nothing while they may sleep.
    until: Mutex<Option<Instant>>,
}

impl Awake {
    /// Never keeps anything awake.
    pub fn never(tasks: Tasks) -> Awake {
        Awake { request: None, tasks }
    }

    /// `device` is the kernel's, or stands for it.
    pub fn open(device: &Path, tasks: Tasks) -> io::Result<Awake> {
        let request = Request { file: OpenOptions::new().write(true).open(device)?, until: Mutex::new(None) };
        // Opening the device alone is a request for no latency at all.
        request.ask(MAY_SLEEP)?;
        Ok(Awake { request: Some(Arc::new(request)), tasks })
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
        if let Err(error) = request.ask(AWAKE) {
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

    #[tokio::test(start_paused = true)]
    async fn processors_stay_awake_for_a_moment_after_the_last_message() {
        let device = tempfile::NamedTempFile::new().unwrap();
        let tasks = Tasks::default();
        let awake = Awake::open(device.path(), tasks.clone()).unwrap();
        assert_eq!(asked(device.path()), MAY_SLEEP, "nothing runs yet");
        let step = limits::AWAKE_TIME * 3 / 4;
        for _ in 0..4 {
            awake.for_a_moment();
            tokio::time::sleep(step).await;
            assert_eq!(asked(device.path()), AWAKE);
        }
        tokio::time::sleep(limits::AWAKE_TIME - step + Duration::from_millis(1)).await;
        assert_eq!(asked(device.path()), MAY_SLEEP);
        awake.for_a_moment();
        assert_eq!(asked(device.path()), AWAKE, "and again");
        tasks.ended().await;
        assert_eq!(asked(device.path()), MAY_SLEEP, "a shutdown waits for the end of the request");
    }

    #[tokio::test]
    async fn without_the_device_there_is_no_request() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Awake::open(&folder.path().join("none"), Tasks::default()).is_err());
        let awake = Awake::never(Tasks::default());
        awake.for_a_moment();
        assert!(awake.request.is_none());
    }
}
