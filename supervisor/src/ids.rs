//! Names and numbers that mean one thing each.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A name that a user chose, checked for length and characters.
macro_rules! checked_name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let check: fn(&str) -> Result<(), String> = $check;
                check(&text).map_err(|reason| format!(concat!($what, " {}"), reason))?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

checked_name!(
    /// The name of an environment: 1 to 100 letters, digits, `.`, `_` and `-`, with a letter or digit
    /// first, so that it is the same in a URL, a file name and a log.
    EnvironmentName,
    "environmentName",
    |text| {
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if first && rest && text.len() <= 100 {
            return Ok(());
        }
        Err("must be 1 to 100 letters, digits, '.', '_' or '-', and begin with a letter or a digit".to_owned())
    }
);

checked_name!(
    /// Whom an execution is for: 1 to 200 characters without control characters.
    AgentId,
    "userAgentId",
    |text| {
        if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
            return Err("must be 1 to 200 bytes without control characters".to_owned());
        }
        Ok(())
    }
);

/// `exec_` and 26 characters of Crockford's base 32 (lower case) that sort by time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct ExecutionId(String);

impl ExecutionId {
    pub fn new() -> ExecutionId {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut number = uuid::Uuid::now_v7().as_u128();
        let mut text = [0_u8; 26];
        for place in text.iter_mut().rev() {
            *place = ALPHABET[usize::try_from(number & 31).unwrap_or(0)];
            number >>= 5;
        }
        ExecutionId(format!("exec_{}", String::from_utf8_lossy(&text)))
    }
}

impl ExecutionId {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A SHA-256 in lower-case hexadecimal: of a build's content, or of submitted code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// The digest of parts, each preceded by its length, so that no two lists of parts collide.
    pub fn of(parts: &[&[u8]]) -> Digest {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Digest::from_bytes(&hash.finalize())
    }

    /// The plain SHA-256 of a text, as other tools compute it.
    pub fn of_text(text: &str) -> Digest {
        Digest::from_bytes(&Sha256::digest(text.as_bytes()))
    }

    fn from_bytes(bytes: &[u8]) -> Digest {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
        Digest(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
    }

    /// A digest that the store kept.
    pub fn stored(text: String) -> Digest {
        Digest(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "Statistics-1", "9.x_y"] {
            assert!(EnvironmentName::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", ".a", "-a", "a/b", "a b", "ä", &"a".repeat(101)] {
            assert!(EnvironmentName::try_from(bad.to_owned()).is_err(), "{bad}");
        }
        assert!(AgentId::try_from("agent 7 (ü)".to_owned()).is_ok());
        assert!(AgentId::try_from("a\nb".to_owned()).is_err());
    }

    #[test]
    fn execution_ids_differ_and_sort_by_time() {
        let first = ExecutionId::new();
        let second = ExecutionId::new();
        assert_eq!(first.to_string().len(), 31);
        assert!(first.to_string() < second.to_string());
    }

    #[test]
    fn a_digest_keeps_its_parts_apart() {
        assert_ne!(Digest::of(&[b"ab", b"c"]), Digest::of(&[b"a", b"bc"]));
        assert_eq!(
            Digest::of_text("").as_str(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
