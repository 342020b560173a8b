//! How deep a JSON text is nested. It passes through unread otherwise, and those who read it later
//! recurse.

/// The greatest number of arrays and objects around any value of a valid JSON text.
pub fn nesting(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => drop(bytes.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn brackets_in_strings_do_not_count() {
        for (json, expected) in
            [("1", 0), ("[]", 1), (r#"{"a[":["{\"[",{}]}"#, 3), (r#""\\" "#, 0), (r#"["\\",[1]]"#, 2)]
        {
            assert_eq!(nesting(json), expected, "{json}");
        }
        assert_eq!(nesting(&"[".repeat(1_000_000)), 1_000_000);
    }

    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }

    proptest! {
        #[test]
        fn it_is_what_a_parser_finds(texts in prop::collection::vec(".*", 1..6), shape in any::<u32>()) {
            let mut value = Value::Null;
            for (index, text) in texts.into_iter().enumerate() {
                value = match shape >> index & 1 {
                    0 => serde_json::json!([text, value]),
                    _ => serde_json::json!({ text: value }),
                };
            }
            prop_assert_eq!(nesting(&value.to_string()), depth(&value));
        }
    }
}
