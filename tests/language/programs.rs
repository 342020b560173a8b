//! Programs in the style of current models, with what each must come to.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::Supervisor;

pub fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/programs"))
}

/// The files, each with its content.
pub fn programs() -> Vec<(String, String)> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let programs = files.filter(|path| path.extension().is_some_and(|extension| extension != "json"));
    let read = |path: PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
    };
    let mut programs: Vec<_> = programs.map(read).collect();
    programs.sort();
    programs
}

/// A supervisor with the environment `shop`.
pub fn shop() -> Supervisor {
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({
        "environmentName": "shop",
        "codeImplementation": include_str!("../fixtures/shop/index.js"),
    }));
    supervisor
}

#[test]
fn programs_as_models_write_them_come_to_what_they_mean() {
    let expected = std::fs::read_to_string(folder().join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let programs = programs();
    assert!(programs.len() >= 60 && programs.len() == expected.as_object().unwrap().len());
    let supervisor = shop();
    for (file, code) in programs {
        let expected = &expected[&file];
        let body = json!({ "environmentName": "shop", "userAgentId": "agent", "code": code, "input": expected["input"] });
        let answer = supervisor.post("/api/execute", &body);
        assert_eq!(answer.status, 200, "{file}: {answer:?}");
        let execution = answer.body;
        for (field, wanted) in expected["error"].as_object().into_iter().flatten() {
            assert_eq!(&execution["errorDetails"][field], wanted, "{file}: {execution}");
        }
        assert_eq!(execution["isError"], expected["error"].is_object(), "{file}: {execution}");
        assert_eq!(execution["result"], expected["result"], "{file}: {execution}");
        for field in ["entryKind", "output"] {
            assert!(expected[field].is_null() || execution[field] == expected[field], "{file}: {execution}");
        }
    }
}
