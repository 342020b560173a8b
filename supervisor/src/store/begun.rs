//! Executions that have begun and not ended: a line of JSON for each, in files beside the database.
//!
//! A line is written before the first call of a program. What stands here and not in the database when a
//! supervisor starts was interrupted. In the database itself that would be a second transaction for each
//! execution, most of which end a millisecond later.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::rows::ExecutionStartRow;

/// A file that has this many bytes gets no more lines. It is removed when all its executions have ended.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

pub struct Begun {
    folder: PathBuf,
    /// What is written to; none before the first line, and after a line that failed.
    current: Option<Open>,
    last: u64,
    /// How many executions of each file have not ended.
    left: HashMap<u64, usize>,
    /// The file of each such execution.
    file_of: HashMap<String, u64>,
}

struct Open {
    number: u64,
    file: File,
    bytes: usize,
    synced: bool,
}

impl Begun {
    /// The executions that a supervisor before this one left, and a place for new ones.
    pub fn open(folder: &Path) -> io::Result<(Begun, Vec<ExecutionStartRow>)> {
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut left = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            left.extend(read(&entry?.path())?);
        }
        let (left_in, file_of) = (HashMap::new(), HashMap::new());
        Ok((Begun { folder: folder.to_owned(), current: None, last: 0, left: left_in, file_of }, left))
    }

    /// Forgets what `open` gave, which stands in the database by now.
    pub fn clear(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(())
    }

    /// Writes a line for each. They survive the end of this process, and the loss of power once `sync` was called.
    pub fn begin(&mut self, rows: &[&ExecutionStartRow]) -> io::Result<()> {
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row)?;
            lines.push(b'\n');
        }
        let mut open = match self.current.take() {
            Some(open) if open.bytes < FILE_BYTES_MAX => open,
            full => {
                self.remove_ended(full.map(|full| full.number));
                self.create()?
            }
        };
        let number = open.number;
        if let Err(error) = open.file.write_all(&lines) {
            // It may end with half a line, so nothing is written behind that.
            self.remove_ended(Some(number));
            return Err(error);
        }
        open.bytes += lines.len();
        open.synced = false;
        self.current = Some(open);
        *self.left.entry(number).or_default() += rows.len();
        self.file_of.extend(rows.iter().map(|row| (row.id.clone(), number)));
        Ok(())
    }

    /// How many executions have not ended.
    pub fn count(&self) -> usize {
        self.file_of.len()
    }

    /// The execution stands in the database as a whole.
    pub fn end(&mut self, id: &str) {
        let Some(number) = self.file_of.remove(id) else { return };
        if let Some(left) = self.left.get_mut(&number) {
            *left -= 1;
        }
        if self.current.as_ref().is_none_or(|open| open.number != number) {
            self.remove_ended(Some(number));
        }
    }

    /// Brings the lines to the disk, if there are new ones.
    pub fn sync(&mut self) -> io::Result<()> {
        match &mut self.current {
            Some(open) if !open.synced => {
                open.file.sync_data()?;
                open.synced = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn create(&mut self) -> io::Result<Open> {
        self.last += 1;
        let number = self.last;
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(self.path(number))?;
        Ok(Open { number, file, bytes: 0, synced: true })
    }

    /// Removes a file that is not written to any more, once all its executions have ended.
    fn remove_ended(&mut self, number: Option<u64>) {
        let Some(number) = number else { return };
        if self.left.get(&number).is_none_or(|left| *left == 0) {
            self.left.remove(&number);
            if let Err(error) = std::fs::remove_file(self.path(number)) {
                tracing::warn!(%error, "a file of executions that have ended could not be removed");
            }
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.jsonl"))
    }
}

/// The lines of a file. One that was cut off while it was written was never acknowledged.
fn read(path: &Path) -> io::Result<Vec<ExecutionStartRow>> {
    let bytes = std::fs::read(path)?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let rows: Vec<_> = lines.map(serde_json::from_slice::<ExecutionStartRow>).collect();
    let unreadable = rows.iter().filter(|row| row.is_err()).count();
    if unreadable > 0 {
        tracing::warn!(file = %path.display(), unreadable, "lines of executions that had begun were cut off");
    }
    Ok(rows.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, code: &str) -> ExecutionStartRow {
        ExecutionStartRow { id: id.to_owned(), code: code.to_owned(), ..ExecutionStartRow::default() }
    }

    fn left(folder: &Path) -> Vec<String> {
        let (_, left) = Begun::open(folder).unwrap();
        let mut ids: Vec<String> = left.into_iter().map(|row| row.id).collect();
        ids.sort();
        ids
    }

    fn files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_has_begun_is_found_again_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let (mut begun, none) = Begun::open(folder.path()).unwrap();
        assert!(none.is_empty());
        begun.begin(&[&row("a", "return 1\n"), &row("b", "")]).unwrap();
        begun.begin(&[&row("c", "ü")]).unwrap();
        begun.sync().unwrap();
        assert_eq!(left(folder.path()), ["a", "b", "c"]);
        let (begun, found) = Begun::open(folder.path()).unwrap();
        assert_eq!(found[0].code, "return 1\n");
        begun.clear().unwrap();
        assert_eq!(left(folder.path()), [""; 0]);
    }

    #[test]
    fn a_full_file_goes_when_its_last_execution_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let (mut begun, _) = Begun::open(folder.path()).unwrap();
        let code = "x".repeat(FILE_BYTES_MAX / 2);
        for id in ["a", "b", "c"] {
            begun.begin(&[&row(id, &code)]).unwrap();
        }
        assert_eq!(files(folder.path()), 2, "the third is in a file of its own");
        begun.end("a");
        assert_eq!(files(folder.path()), 2);
        begun.end("b");
        assert_eq!(files(folder.path()), 1);
        begun.end("c");
        begun.begin(&[&row("d", &code)]).unwrap();
        assert_eq!((files(folder.path()), left(folder.path())), (1, vec!["c".to_owned(), "d".to_owned()]));
        begun.end("d");
        begun.begin(&[&row("e", "")]).unwrap();
        assert_eq!(left(folder.path()), ["e"], "a file whose executions have all ended goes when it is full");
    }

    #[test]
    fn a_line_that_was_cut_off_harms_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (mut begun, _) = Begun::open(folder.path()).unwrap();
        begun.begin(&[&row("a", ""), &row("b", "")]).unwrap();
        let path = folder.path().join("1.jsonl");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        assert_eq!(left(folder.path()), ["a"]);
    }

    #[test]
    fn nothing_is_written_behind_a_line_that_failed() {
        let folder = tempfile::tempdir().unwrap();
        let (mut begun, _) = Begun::open(folder.path()).unwrap();
        begun.begin(&[&row("a", "")]).unwrap();
        // As a full disk, which keeps what fits.
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        begun.current.as_mut().unwrap().file = full;
        assert!(begun.begin(&[&row("b", "")]).is_err());
        begun.begin(&[&row("c", "")]).unwrap();
        assert_eq!((files(folder.path()), left(folder.path())), (2, vec!["a".to_owned(), "c".to_owned()]));
        begun.end("a");
        assert_eq!(left(folder.path()), ["c"]);
    }
}
