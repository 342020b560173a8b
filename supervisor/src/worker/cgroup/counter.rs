//! Numbers that the kernel keeps for a group, in files that stay open: they are read around every
//! execution, and to find a file of a control group takes longer than to read it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// What is read of a file; the counters of the largest stand at its start.
const READ_BYTES_MAX: usize = 512;

/// One file; without it nothing is known, and nothing is reset.
#[derive(Debug)]
pub struct Counter {
    file: Option<File>,
}

impl Counter {
    /// Opens a file that is read only.
    pub fn open(folder: &Path, file: &str) -> Counter {
        Counter { file: File::open(folder.join(file)).ok() }
    }

    /// Opens a file that may be written, where the kernel lets us; else it is read only.
    pub fn open_resettable(folder: &Path, file: &str) -> Counter {
        let path = folder.join(file);
        let file = OpenOptions::new().read(true).write(true).open(&path).or_else(|_| File::open(&path));
        Counter { file: file.ok() }
    }

    /// The number that the file consists of.
    pub fn number(&self) -> Option<u64> {
        self.with_text(|text| text.trim().parse().ok())
    }

    /// The number after `key ` in a flat keyed file.
    pub fn number_of(&self, key: &str) -> Option<u64> {
        self.with_text(|text| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok()))
    }

    /// Starts a peak anew. A kernel that cannot do that leaves the peak of the whole life of the process.
    pub fn reset(&self) {
        if let Some(file) = &self.file {
            let _ = file.write_at(b"0", 0);
        }
    }

    fn with_text<T>(&self, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let mut buffer = [0; READ_BYTES_MAX];
        let length = self.file.as_ref()?.read_at(&mut buffer, 0).ok()?;
        read(std::str::from_utf8(&buffer[..length]).ok()?)
    }
}
