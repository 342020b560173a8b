//! Asks the jailed analyzer what a source is. The supervisor itself never parses JavaScript.
//!
//! A source that makes an analyzer abort (deep nesting overflows its stack) costs that request and a new
//! process. What it said of a program is kept.

mod desk;

use std::sync::Arc;

use analyzer::{Answer, Implementation, Program, Request, Shift, Submission, UnknownName, Violation};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use desk::Desk;

use crate::config::limits;
use crate::ids::Digest;
use crate::runtime::Tasks;
use crate::worker::{LaunchError, Launcher};

/// What a program takes beside its source.
const PROGRAM_BYTES: usize = 1024;

/// Of the two desks the first is asked, unless sources of so many bytes more wait there: a short one is not to wait
/// for a long one.
const WAITING_STEP_BYTES: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum AnalysisError {
    /// The caller's doing.
    #[error("the source is refused")]
    Refused(Vec<Violation>),
    /// The analyzer gave up on it, which only a hostile source brings about.
    #[error("the source is nested too deeply, or takes too long to read")]
    TooComplex,
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the analyzer sent an answer to another question")]
    OutOfTurn,
    #[error("all analyzers are busy: try again in a moment")]
    Busy,
}

#[derive(Clone)]
pub struct Analysis {
    desks: Arc<[Desk; 2]>,
    /// Programs by the digest of everything that decides how they are read.
    known: Arc<KnownPrograms>,
}

/// A program that is not known.
pub struct Unseen {
    pub submission: Submission,
    digest: Digest,
}

type KnownPrograms = Cache<Digest, Arc<Program>, Bytes>;

fn known_programs(bytes_max: usize) -> KnownPrograms {
    Cache::with_weighter(bytes_max / (4 * PROGRAM_BYTES), bytes_max as u64, Bytes)
}

/// What a program costs the cache, roughly in bytes.
#[derive(Clone)]
struct Bytes;

impl Weighter<Digest, Arc<Program>> for Bytes {
    fn weight(&self, _: &Digest, program: &Arc<Program>) -> u64 {
        let names = program.used.iter().chain(&program.functions).chain(&program.warnings);
        let texts: usize = names.map(|text| size_of::<String>() + text.len()).sum();
        let unknown = program.unknown.iter().map(|unknown| size_of::<UnknownName>() + unknown.name.len());
        let shifts = program.shifts.len() * size_of::<Shift>();
        (PROGRAM_BYTES + program.source.len() + shifts + texts + unknown.sum::<usize>()) as u64
    }
}

impl Analysis {
    /// Analyzers are started when somebody asks, and end when the supervisor shuts down.
    pub fn new(launcher: &Launcher, tasks: &Tasks) -> Analysis {
        Analysis {
            desks: Arc::new(std::array::from_fn(|_| Desk::open(launcher.clone(), tasks))),
            known: Arc::new(known_programs(limits::KNOWN_PROGRAMS_BYTES_MAX)),
        }
    }

    /// How a submitted program is run.
    pub async fn program(&self, submission: Submission) -> Result<Arc<Program>, AnalysisError> {
        match self.known(submission) {
            Ok(program) => Ok(program),
            Err(unseen) => self.analyze(unseen, false).await,
        }
    }

    /// The same, if it was asked before.
    pub fn known(&self, submission: Submission) -> Result<Arc<Program>, Unseen> {
        let digest = digest_of(&submission);
        self.known.get(&digest).ok_or(Unseen { submission, digest })
    }

    /// `here` keeps the analyzer on the processor from which it is asked, unless others ask as well.
    pub async fn analyze(&self, unseen: Unseen, here: bool) -> Result<Arc<Program>, AnalysisError> {
        let Unseen { submission, digest } = unseen;
        match self.ask(Request::Program(submission), here).await? {
            Answer::Program(program) => {
                let program = Arc::new(program);
                self.known.insert(digest, program.clone());
                Ok(program)
            }
            Answer::Refused { violations } => Err(AnalysisError::Refused(violations)),
            Answer::TooComplex => Err(AnalysisError::TooComplex),
            Answer::Implementation(_) => Err(AnalysisError::OutOfTurn),
        }
    }

    /// What an implementation declares.
    pub async fn implementation(&self, source: &str) -> Result<Implementation, AnalysisError> {
        match self.ask(Request::Implementation { source: source.to_owned() }, false).await? {
            Answer::Implementation(implementation) => Ok(implementation),
            Answer::Refused { violations } => Err(AnalysisError::Refused(violations)),
            Answer::TooComplex => Err(AnalysisError::TooComplex),
            Answer::Program(_) => Err(AnalysisError::OutOfTurn),
        }
    }

    async fn ask(&self, request: Request, here: bool) -> Result<Answer, AnalysisError> {
        let [first, second] = &*self.desks;
        let steps = |desk: &Desk| desk.waiting_bytes() / WAITING_STEP_BYTES;
        let desk = if steps(second) < steps(first) { second } else { first };
        let is_alone = first.waiting_bytes() == 0 && second.waiting_bytes() == 0;
        desk.ask(request, here && is_alone).await
    }
}

fn digest_of(submission: &Submission) -> Digest {
    let Submission { source, language, entry, has_input, functions, given } = submission;
    let language = language.map_or(0, |language| language as u8 + 1);
    let entry = entry.as_deref().unwrap_or_default();
    let mut parts: Vec<&[u8]> = vec![source.as_bytes(), entry.as_bytes()];
    let counted = [language, u8::from(*has_input)];
    let functions_count = functions.len().to_be_bytes();
    parts.extend([counted.as_slice(), functions_count.as_slice()]);
    parts.extend(functions.iter().chain(given).map(String::as_bytes));
    Digest::of(&parts)
}

#[cfg(test)]
mod tests {
    use analyzer::Language;

    use super::*;

    #[test]
    fn what_is_kept_of_programs_is_bounded_by_its_size() {
        let bytes_max = 256 * 1024;
        let known = known_programs(bytes_max);
        for number in 0..500 {
            let program = Program {
                source: "x".repeat(5_000),
                entry: analyzer::Entry::Script,
                entry_kind: analyzer::EntryKind::Script,
                language: Language::JavaScript,
                lines_before: 0,
                shifts: Vec::new(),
                unknown: Vec::new(),
                used: Vec::new(),
                functions: vec!["f".repeat(5_000)],
                warnings: Vec::new(),
            };
            known.insert(Digest::of_text(&number.to_string()), Arc::new(program));
        }
        assert!(known.weight() <= bytes_max as u64, "{} bytes", known.weight());
        assert!(known.len() > 5 && known.len() * 10_000 <= bytes_max, "{} programs", known.len());
    }

    #[test]
    fn whatever_decides_how_a_program_is_read_is_in_its_digest() {
        let plain = Submission { source: "f".to_owned(), ..Submission::default() };
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let others = [
            plain.clone(),
            Submission { source: "g".to_owned(), ..plain.clone() },
            Submission { language: Some(Language::JavaScript), ..plain.clone() },
            Submission { language: Some(Language::TypeScript), ..plain.clone() },
            Submission { entry: Some("f".to_owned()), ..plain.clone() },
            Submission { has_input: true, ..plain.clone() },
            Submission { functions: names(&["a", "b"]), ..plain.clone() },
            Submission { functions: names(&["a"]), given: names(&["b"]), ..plain.clone() },
            Submission { given: names(&["a", "b"]), ..plain.clone() },
        ];
        let digests: std::collections::HashSet<_> = others.iter().map(digest_of).collect();
        assert_eq!(digests.len(), others.len());
        assert_eq!(digest_of(&plain), digest_of(&plain.clone()));
    }
}
