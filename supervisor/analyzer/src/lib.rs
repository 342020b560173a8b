//! The messages between the supervisor and the analyzer: one request, one answer, in frames of four bytes of big-endian
//! length and postcard, which is much less to read and to write than JSON.
//!
//! This library is all that the supervisor links of the package; how programs are wrapped is in it too, for a guess.
//! The parser is in the binary, which runs in a jail of its own: no Rust parser of JavaScript survives deep nesting,
//! so it works where an abort costs one request.

mod globals;
mod wrapper;

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

pub use globals::GLOBALS;
pub use wrapper::{LINES_BEFORE_CALL, Likely, WAYS_TO_NAMES, calling, likely, wrapped};

/// The largest request and the largest answer, in bytes.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most messages have room in so many bytes.
const USUAL_BYTES: usize = 1024;

/// A message as the body of a frame.
pub fn encode(message: &impl Serialize) -> Option<Vec<u8>> {
    postcard::to_extend(message, Vec::with_capacity(USUAL_BYTES)).ok()
}

/// The message in the body of a frame, which holds nothing else.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Option<M> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

/// What a list of an answer holds: an empty text is one byte of a frame and many of memory, so the length of the frame
/// does not bound it.
const LIST_MAX: usize = 20_000;
/// More than the characters of a program.
const SHIFTS_MAX: usize = 300_000;

/// Reads a list, and fails at the first element too many.
fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct List<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "a list of at most {MAX}")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Code that an agent submits.
    Program(Submission),
    /// Code that a contributor provisions.
    Implementation { source: String },
}

/// A program as it was submitted, and what decides how it is read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Submission {
    pub source: String,
    /// Found out where it is not said.
    pub language: Option<Language>,
    /// The top-level function to call.
    pub entry: Option<String>,
    pub has_input: bool,
    /// The functions of the environment.
    pub functions: Vec<String>,
    /// The names of other values that are given beside the guest's own.
    pub given: Vec<String>,
}

impl Submission {
    /// The names that an environment and a request give to a program.
    pub fn known(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().chain(&self.given).map(String::as_str)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    JavaScript,
    TypeScript,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Program(Program),
    Implementation(Implementation),
    /// The source is nested too deeply.
    TooComplex,
    /// The source cannot be used; at least one reason.
    Refused {
        #[serde(deserialize_with = "at_most::<_, _, LIST_MAX>")]
        violations: Vec<Violation>,
    },
}

/// How the guest runs a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Entry {
    /// `source` evaluates to a function, which is called with the input.
    Call,
    /// The completion value of `source` is the result.
    Script,
}

/// Why a program starts where it does, in the order in which it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// The request named it.
    Entry,
    ExportDefault,
    /// A top-level `execute`, because there is an input.
    Execute,
    /// A top-level `main`.
    Main,
    /// The whole program is one function expression.
    Function,
    /// There is a `return` or an `await` outside of every function.
    Body,
    /// The completion value is the result.
    Script,
}

/// Where columns of `Program::source` have moved: those of a line from `column` on, by so many UTF-16 units. The
/// line is one of the submitted text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shift {
    pub line: u32,
    pub column: u32,
    pub by: i64,
}

/// A name that stands for nothing, at its first place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownName {
    pub name: String,
    pub called: bool,
    /// A value is given to it.
    pub assigned: bool,
    pub line: u32,
    pub column: u32,
}

/// A program in the form in which the guest evaluates it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    pub source: String,
    pub entry: Entry,
    pub entry_kind: EntryKind,
    pub language: Language,
    /// Lines of `source` that precede the submitted text.
    pub lines_before: u32,
    #[serde(deserialize_with = "at_most::<_, _, SHIFTS_MAX>")]
    pub shifts: Vec<Shift>,
    /// Names that stand for nothing, each once, in the order of the source.
    #[serde(deserialize_with = "at_most::<_, _, LIST_MAX>")]
    pub unknown: Vec<UnknownName>,
    /// Those of the given names that it uses.
    #[serde(deserialize_with = "at_most::<_, _, LIST_MAX>")]
    pub used: Vec<String>,
    /// The functions that it can use: those that it mentions, or all.
    #[serde(deserialize_with = "at_most::<_, _, LIST_MAX>")]
    pub functions: Vec<String>,
    /// What the program leaves open, and how it was decided.
    #[serde(deserialize_with = "at_most::<_, _, LIST_MAX>")]
    pub warnings: Vec<String>,
}

/// The module system in which an implementation is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModuleKind {
    CommonJs,
    Module,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Implementation {
    pub module: ModuleKind,
    /// The functions marked `@endowment`, in the order of the source.
    #[serde(deserialize_with = "at_most::<_, _, LIST_MAX>")]
    pub endowments: Vec<String>,
}

/// One reason why a source cannot be used. Lines and columns count from 1, columns in UTF-16 units
/// as JavaScript counts them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Violation {
    pub message: String,
    pub line: u32,
    pub column: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_one_message_and_nothing_else() {
        let answer = Answer::Refused {
            violations: vec![Violation { message: "no".to_owned(), line: 1, column: 300 }],
        };
        let body = encode(&answer).unwrap();
        assert_eq!(decode::<Answer>(&body), Some(answer));
        assert_eq!(decode::<Answer>(&[body.as_slice(), &[0]].concat()), None);
        assert_eq!(decode::<Answer>(&body[..body.len() - 1]), None);
        // It says that more follows than there is memory for.
        assert_eq!(decode::<Answer>(&[3, 0xff, 0xff, 0xff, 0xff, 0x0f]), None);
        assert_eq!(decode::<Answer>(&[9]), None);
    }

    #[test]
    fn a_list_has_an_end_however_little_its_elements_take() {
        let names = |count: usize| {
            Answer::Implementation(Implementation {
                module: ModuleKind::Module,
                endowments: vec![String::new(); count],
            })
        };
        assert!(decode::<Answer>(&encode(&names(LIST_MAX)).unwrap()).is_some());
        assert!(decode::<Answer>(&encode(&names(LIST_MAX + 1)).unwrap()).is_none());
        let program = |shifts: usize, names: usize| {
            Answer::Program(Program {
                source: String::new(),
                entry: Entry::Call,
                entry_kind: EntryKind::Main,
                language: Language::JavaScript,
                lines_before: 1,
                shifts: vec![Shift { line: 1, column: 1, by: 0 }; shifts],
                unknown: Vec::new(),
                used: vec![String::new(); names],
                functions: Vec::new(),
                warnings: Vec::new(),
            })
        };
        assert!(decode::<Answer>(&encode(&program(SHIFTS_MAX, LIST_MAX)).unwrap()).is_some());
        assert!(decode::<Answer>(&encode(&program(SHIFTS_MAX + 1, 0)).unwrap()).is_none());
        assert!(decode::<Answer>(&encode(&program(0, LIST_MAX + 1)).unwrap()).is_none());
    }
}
