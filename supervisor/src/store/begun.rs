//! Executions that have begun and not ended: a line of JSON for each, in files beside the database.
//!
//! A line is written before the first call of a program, and another one if the program does not start after all.
//! What stands here and not in the database when a supervisor starts was interrupted. In the database itself that
//! would be a second transaction for each execution, most of which end a millisecond later.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::rows::ExecutionStartRow;

/// A file that has this many bytes gets no more lines. It is removed when all its executions have ended.
const FILE_BYTES_MAX: usize = 4 * 1024 * 1024;

pub struct Begun {
    folder: PathBuf,
    /// What is written to; none before the first line, and after a line that failed.
    current: Option<Open>,
    last: u64,
    /// How many executions of each file have no row yet.
    left: HashMap<u64, usize>,
    /// The file of each that is under way.
    file_of: HashMap<String, u64>,
}

/// What else a line may say: an execution that had begun is not going to be.
#[derive(Serialize, Deserialize)]
struct Withdrawn<'a> {
    withdrawn: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line<'a> {
    Withdrawn(Withdrawn<'a>),
    Begun(Box<ExecutionStartRow>),
}

struct Open {
    number: u64,
    file: File,
    bytes: usize,
    synced: bool,
    /// Whether its name is on the disk as well.
    found: bool,
}

impl Begun {
    /// The executions that a supervisor before this one left, and a place for new ones.
    pub fn open(folder: &Path) -> io::Result<(Begun, Vec<ExecutionStartRow>)> {
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut left = Vec::new();
        for path in files(folder)? {
            left.extend(read(&path)?);
        }
        let (left_in, file_of) = (HashMap::new(), HashMap::new());
        Ok((Begun { folder: folder.to_owned(), current: None, last: 0, left: left_in, file_of }, left))
    }

    /// Forgets what `open` gave, which stands in the database by now.
    pub fn clear(&self) -> io::Result<()> {
        files(&self.folder)?.iter().try_for_each(std::fs::remove_file)
    }

    /// Writes a line for each. They survive the end of this process, and the loss of power once `settle` was called.
    pub fn begin(&mut self, rows: &[&ExecutionStartRow]) -> io::Result<()> {
        let mut lines = Vec::new();
        for row in rows {
            serde_json::to_writer(&mut lines, row)?;
            lines.push(b'\n');
        }
        let mut open = match self.current.take() {
            Some(open) if open.bytes < FILE_BYTES_MAX => open,
            full => {
                if let Some(mut full) = full {
                    if self.left.get(&full.number) != Some(&0) {
                        full.sync(&self.folder)?;
                    }
                    self.remove_ended(full.number);
                }
                self.create()?
            }
        };
        let number = open.number;
        if let Err(error) = open.write(&lines) {
            // It may end with half a line, so nothing begins behind that.
            self.remove_ended(number);
            return Err(error);
        }
        self.current = Some(open);
        *self.left.entry(number).or_default() += rows.len();
        self.file_of.extend(rows.iter().map(|row| (row.id.clone(), number)));
        Ok(())
    }

    /// How many executions are under way.
    pub fn count(&self) -> usize {
        self.file_of.len()
    }

    /// The execution has ended and could not be recorded, so its line stays for the next supervisor.
    pub fn give_up(&mut self, id: &str) {
        self.file_of.remove(id);
    }

    /// The execution is not going to be, so nobody is to hear that it was interrupted.
    pub fn withdraw(&mut self, id: &str) -> io::Result<()> {
        let Some(&number) = self.file_of.get(id) else { return Ok(()) };
        // What stands before it may have been cut off.
        let mut line = b"\n".to_vec();
        serde_json::to_writer(&mut line, &Withdrawn { withdrawn: id.into() })?;
        line.push(b'\n');
        let written = self.append(number, &line);
        self.end(id);
        written
    }

    /// The execution stands in the database as a whole.
    pub fn end(&mut self, id: &str) {
        let Some(number) = self.file_of.remove(id) else { return };
        if let Some(left) = self.left.get_mut(&number) {
            *left -= 1;
        }
        if self.current.as_ref().is_none_or(|open| open.number != number) {
            self.remove_ended(number);
        }
    }

    /// Brings the lines to the disk, or removes them if all of their executions have ended.
    pub fn settle(&mut self) -> io::Result<()> {
        let Some(open) = self.current.take() else { return Ok(()) };
        if self.left.get(&open.number) == Some(&0) {
            self.remove_ended(open.number);
            return Ok(());
        }
        self.current.insert(open).sync(&self.folder)
    }

    /// Writes to a file that has lines already.
    fn append(&mut self, number: u64, line: &[u8]) -> io::Result<()> {
        match self.current.take() {
            Some(mut open) if open.number == number => {
                open.write(line)?;
                self.current = Some(open);
                Ok(())
            }
            other => {
                self.current = other;
                OpenOptions::new().append(true).open(self.path(number))?.write_all(line)
            }
        }
    }

    fn create(&mut self) -> io::Result<Open> {
        self.last += 1;
        let number = self.last;
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(self.path(number))?;
        Ok(Open { number, file, bytes: 0, synced: true, found: false })
    }

    /// Removes a file that is not written to any more, once all its executions have ended.
    fn remove_ended(&mut self, number: u64) {
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

impl Open {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)?;
        self.bytes += lines.len();
        self.synced = false;
        Ok(())
    }

    fn sync(&mut self, folder: &Path) -> io::Result<()> {
        if !self.synced {
            self.file.sync_data()?;
            self.synced = true;
        }
        if !self.found {
            File::open(folder)?.sync_all()?;
            self.found = true;
        }
        Ok(())
    }
}

/// The files that are ours.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if number.is_some() && path.extension() == Some("jsonl".as_ref()) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Who began in a file and was not withdrawn. A line that was cut off while it was written was never acknowledged.
fn read(path: &Path) -> io::Result<Vec<ExecutionStartRow>> {
    let bytes = std::fs::read(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    let (mut begun, mut withdrawn, mut unreadable) = (Vec::new(), HashSet::new(), 0);
    for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Line::Begun(row)) => begun.push(*row),
            Ok(Line::Withdrawn(Withdrawn { withdrawn: id })) => drop(withdrawn.insert(id)),
            Err(_) => unreadable += 1,
        }
    }
    if unreadable > 0 {
        tracing::warn!(file = %path.display(), unreadable, "lines of executions that had begun were cut off");
    }
    begun.retain(|row| !withdrawn.contains(row.id.as_str()));
    Ok(begun)
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

    fn count_files(folder: &Path) -> usize {
        std::fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn what_has_begun_is_found_again_until_it_is_cleared() {
        let folder = tempfile::tempdir().unwrap();
        let (mut begun, none) = Begun::open(folder.path()).unwrap();
        assert!(none.is_empty());
        begun.begin(&[&row("a", "return 1\n"), &row("b", "")]).unwrap();
        begun.begin(&[&row("c", "ü")]).unwrap();
        begun.settle().unwrap();
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
        assert_eq!(count_files(folder.path()), 2, "the third is in a file of its own");
        begun.end("a");
        assert_eq!(count_files(folder.path()), 2);
        begun.end("b");
        assert_eq!(count_files(folder.path()), 1);
        begun.end("c");
        begun.begin(&[&row("d", &code)]).unwrap();
        assert_eq!(
            (count_files(folder.path()), left(folder.path())),
            (1, vec!["c".to_owned(), "d".to_owned()])
        );
        begun.end("d");
        begun.begin(&[&row("e", "")]).unwrap();
        assert_eq!(left(folder.path()), ["e"], "a file whose executions have all ended goes when it is full");
    }

    #[test]
    fn nothing_stays_of_executions_that_have_ended_and_all_of_one_that_could_not_be_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let (mut begun, _) = Begun::open(folder.path()).unwrap();
        std::fs::write(folder.path().join("README"), "of somebody else").unwrap();
        begun.begin(&[&row("a", ""), &row("b", "")]).unwrap();
        begun.end("a");
        begun.settle().unwrap();
        assert_eq!((begun.count(), left(folder.path())), (1, vec!["a".to_owned(), "b".to_owned()]));
        begun.end("b");
        begun.settle().unwrap();
        assert_eq!((begun.count(), count_files(folder.path())), (0, 1), "what is not ours stays");
        begun.begin(&[&row("c", "")]).unwrap();
        begun.give_up("c");
        begun.settle().unwrap();
        assert_eq!((begun.count(), left(folder.path())), (0, vec!["c".to_owned()]));
    }

    #[test]
    fn who_was_withdrawn_is_not_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut begun, _) = Begun::open(folder.path()).unwrap();
        begun.begin(&[&row("a", ""), &row("b", ""), &row("c", &"x".repeat(FILE_BYTES_MAX))]).unwrap();
        begun.withdraw("a").unwrap();
        assert_eq!((begun.count(), left(folder.path())), (2, vec!["b".to_owned(), "c".to_owned()]));
        // Its file is full meanwhile, and ends with half a line.
        begun.begin(&[&row("d", "")]).unwrap();
        let path = folder.path().join("1.jsonl");
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"id\":").unwrap();
        begun.withdraw("b").unwrap();
        begun.withdraw("unknown").unwrap();
        begun.settle().unwrap();
        assert_eq!((begun.count(), left(folder.path())), (2, vec!["c".to_owned(), "d".to_owned()]));
        begun.withdraw("c").unwrap();
        assert_eq!((count_files(folder.path()), left(folder.path())), (1, vec!["d".to_owned()]));
        begun.withdraw("d").unwrap();
        begun.settle().unwrap();
        assert_eq!((begun.count(), count_files(folder.path())), (0, 0));
    }

    #[test]
    fn a_withdrawal_that_fails_stops_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let (mut begun, _) = Begun::open(folder.path()).unwrap();
        begun.begin(&[&row("a", ""), &row("b", "")]).unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        begun.current.as_mut().unwrap().file = full;
        assert!(begun.withdraw("a").is_err());
        begun.begin(&[&row("c", "")]).unwrap();
        assert_eq!((begun.count(), left(folder.path())), (2, ["a", "b", "c"].map(str::to_owned).into()));
        begun.end("b");
        assert_eq!(left(folder.path()), ["c"]);
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
        assert_eq!(
            (count_files(folder.path()), left(folder.path())),
            (2, vec!["a".to_owned(), "c".to_owned()])
        );
        begun.end("a");
        assert_eq!(left(folder.path()), ["c"]);
    }
}
