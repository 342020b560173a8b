//! What a package-lock.json says: where packages lie, and which of them have install scripts. It is a text
//! of the contributor or of npm, so nothing in it is believed about the disk.

use std::collections::BTreeSet;

use serde_json::Value;

/// Where the lockfile puts a package, below the build. An alias or a bundled folder of the same name is
/// another package.
pub fn folders_of(package: &str, package_lock: &str) -> Vec<String> {
    let suffix = format!("node_modules/{package}");
    let named = |path: &str| path == suffix || path.ends_with(&format!("/{suffix}"));
    // A lockfile is the contributor's own text.
    let inside = |path: &str| path.starts_with("node_modules/") && !path.split('/').any(|part| part == "..");
    let itself = |entry: &Value| {
        let name = entry.get("name").and_then(Value::as_str);
        let borrowed = ["inBundle", "link", "extraneous"].iter().any(|mark| entry.get(mark).is_some());
        name.is_none_or(|name| name == package) && !borrowed
    };
    let all = locked_packages(package_lock).into_iter();
    all.filter(|(path, entry)| named(path) && inside(path) && itself(entry)).map(|(path, _)| path).collect()
}

/// The packages that have install scripts, by name.
pub fn packages_with_scripts(package_lock: &str) -> BTreeSet<String> {
    let with_scripts = locked_packages(package_lock)
        .into_iter()
        .filter(|(_, entry)| entry.get("hasInstallScript").and_then(Value::as_bool) == Some(true));
    with_scripts
        .filter_map(|(path, _)| path.rsplit_once("node_modules/").map(|(_, name)| name.to_owned()))
        .collect()
}

fn locked_packages(package_lock: &str) -> Vec<(String, Value)> {
    let parsed: Value = serde_json::from_str(package_lock).unwrap_or_default();
    match parsed.get("packages") {
        Some(Value::Object(packages)) => packages.clone().into_iter().collect(),
        _ => Vec::new(),
    }
}

/// How many packages it has.
pub fn count_packages(package_lock: &str) -> u32 {
    // The first entry is the project itself.
    u32::try_from(locked_packages(package_lock).len().saturating_sub(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_found_wherever_the_lockfile_has_it_and_nowhere_else() {
        let lock = r#"{"packages":{"":{},"node_modules/a":{"hasInstallScript":true},"node_modules/b/node_modules/a":{},
            "node_modules/@s/a":{"hasInstallScript":true},"../../node_modules/a":{},"/x/node_modules/a":{},
            "node_modules/c/node_modules/a":{"name":"evil"},"node_modules/d/node_modules/a":{"inBundle":true}}}"#;
        assert_eq!(folders_of("a", lock), ["node_modules/a", "node_modules/b/node_modules/a"]);
        assert_eq!(folders_of("@s/a", lock), ["node_modules/@s/a"]);
        assert!(folders_of("c", lock).is_empty());
        assert_eq!(packages_with_scripts(lock), BTreeSet::from(["a".to_owned(), "@s/a".to_owned()]));
    }
}
