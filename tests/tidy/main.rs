//! Rules of the tree that no compiler checks.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Files below a folder of the tree with one of the extensions, without what is built or installed.
fn files(folder: &str, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root().join(folder)];
    while let Some(path) = pending.pop() {
        for entry in fs::read_dir(&path).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !["node_modules", "target", ".git"].contains(&name.as_str()) {
                pending.push(path);
            } else if extensions
                .iter()
                .any(|extension| path.extension().is_some_and(|found| found == *extension))
            {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "no files in {folder}");
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

/// The modules of the supervisor in the order in which they may use each other: a module uses those
/// of earlier rows. Only the first row's may use one another.
const LAYERS: [&[&str]; 11] = [
    &["ids", "clock", "fields", "config", "runtime", "awake", "processors"],
    &["protocol"],
    &["store", "admission", "egress"],
    &["worker"],
    &["analysis", "doctor", "audit"],
    &["environment"],
    &["pool"],
    &["execution"],
    &["daemon"],
    &["http"],
    &["cli"],
];

fn row(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn dependencies_point_one_way() {
    for path in files("supervisor/src", &["rs"]) {
        let place = relative(&path);
        let module = place.trim_start_matches("supervisor/src/").split(['/', '.']).next().unwrap();
        if ["main", "lib"].contains(&module) {
            continue;
        }
        let own = row(module).unwrap_or_else(|| panic!("{module} has no place in the order"));
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let words = line
                .split("crate::")
                .skip(1)
                .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next());
            for used in words.filter(|used| *used != module) {
                let allowed = row(used).is_some_and(|other| other < own || (other == own && own == 0));
                assert!(allowed, "{place}:{} uses {used}", number + 1);
            }
        }
    }
}

#[test]
fn unsafe_code_has_two_rooms() {
    let word = concat!("un", "safe");
    for path in files("supervisor", &["rs"]).into_iter().chain(files("tests", &["rs"])) {
        let text = fs::read_to_string(&path).unwrap();
        let used = text.lines().any(|line| {
            !line.trim_start().starts_with("//")
                && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|found| found == word)
        });
        let rooms = ["supervisor/jail/src/sys.rs", "supervisor/seal/src/sys.rs"];
        assert_eq!(used, rooms.contains(&relative(&path).as_str()), "{}", relative(&path));
    }
    let main = fs::read_to_string(root().join("supervisor/src/lib.rs")).unwrap();
    assert!(main.contains(&format!("#![forbid({word}_code)]")));
}

#[test]
fn every_file_says_what_it_owns() {
    for path in files("supervisor", &["rs"]).into_iter().chain(files("tests", &["rs"])) {
        assert!(fs::read_to_string(&path).unwrap().starts_with("//! "), "{}", relative(&path));
    }
    for path in files("node-harness/src", &["js"]) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("// @ts-check\n/**"), "{}", relative(&path));
    }
}

#[test]
fn files_stay_small() {
    for path in files("supervisor", &["rs"]) {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().lines().count();
        assert!(code <= 400, "{} has {code} lines", relative(&path));
    }
    for path in files("node-harness/src", &["js"]) {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 200, "{} has {lines} lines", relative(&path));
    }
}

#[test]
fn builtins_of_node_are_imported_in_powers_only() {
    for folder in ["node-harness/src/guest", "node-harness/src/host", "node-harness/src/shared"] {
        for path in files(folder, &["js"]) {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(
                text.contains("from 'node:"),
                path.ends_with("shared/powers.js"),
                "{}",
                relative(&path)
            );
        }
    }
}

/// The fixtures are what the supervisor's own test reads; the mirror must name all that is in them.
#[test]
fn the_harness_knows_every_message_of_the_protocol() {
    let mirror = fs::read_to_string(root().join("node-harness/src/shared/protocol.js")).unwrap();
    let words: Vec<&str> = mirror.split(|c: char| !c.is_alphanumeric()).collect();
    for name in ["to-guest", "from-guest", "to-host", "from-host"] {
        let path = root().join("tests/fixtures/protocol").join(name).with_extension("json");
        let messages: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        for (message, fields) in messages.iter().flatten() {
            for word in std::iter::once(message).chain(fields.as_object().unwrap().keys()) {
                assert!(words.contains(&word.as_str()), "{word} of {message} in {name}");
            }
        }
    }
}

#[test]
fn lockfiles_hold_no_addresses() {
    for path in files("node-harness", &["json"]).into_iter().chain(files("examples", &["json"])) {
        assert!(!fs::read_to_string(&path).unwrap().contains("\"resolved\""), "{}", relative(&path));
    }
}

#[test]
fn invariants_of_the_architecture_name_tests_that_exist() {
    let architecture = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let sources: String = files("tests", &["rs"])
        .into_iter()
        .chain(files("supervisor", &["rs"]))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let named: Vec<&str> = architecture
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| {
            word.contains('_')
                && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        })
        .filter(|word| word.matches('_').count() >= 3)
        .collect();
    assert!(named.len() >= 8, "{named:?}");
    for name in named {
        assert!(
            sources.contains(&format!("fn {name}(")),
            "ARCHITECTURE.md names a test that does not exist: {name}"
        );
    }
}
