//! What a guest may send, whatever its harness checked before. Pure, so that every lie has a test.

use super::ledger::Ledger;
use crate::config::limits;
use crate::protocol::nesting;

/// What is to be done with a call.
#[derive(Debug, PartialEq, Eq)]
pub enum CallCheck {
    Forward,
    /// The program gets an error.
    Refuse {
        code: &'static str,
        message: String,
    },
    /// No harness that is whole sends it: the process is ended.
    Lie(&'static str),
}

/// How many calls a program may make, and wait for at the same time.
#[derive(Clone, Copy)]
pub struct CallBudget {
    pub calls_max: u32,
    pub concurrent_max: u32,
}

pub fn check_call(
    ledger: &Ledger,
    endowments: &[String],
    budget: CallBudget,
    call_id: u32,
    name: &str,
    params: &str,
) -> CallCheck {
    if ledger.knows(call_id) {
        return CallCheck::Lie("the number of an earlier call");
    }
    let CallBudget { calls_max, concurrent_max } = budget;
    let (code, message) = if !endowments.iter().any(|known| known == name) {
        // The name is the guest's, and may be of any length.
        ("api_not_provisioned", "there is no function of that name in this environment".to_owned())
    } else if ledger.forwarded() >= calls_max {
        ("api_call_limit", format!("more than {calls_max} API calls in one execution"))
    } else if ledger.open() >= concurrent_max {
        ("api_concurrency_limit", format!("more than {concurrent_max} API calls at the same time"))
    } else if params.len() > limits::PARAMS_BYTES_MAX {
        (
            "params_too_large",
            format!("the parameters of {name} are larger than {} bytes", limits::PARAMS_BYTES_MAX),
        )
    } else if nesting(params) > limits::NESTING_MAX {
        (
            "nesting_too_deep",
            format!("the parameters of {name} are nested more than {} levels deep", limits::NESTING_MAX),
        )
    } else {
        return CallCheck::Forward;
    };
    // A harness that is whole refuses these itself, so a flood of them is an attack.
    if ledger.has_refused(calls_max) {
        return CallCheck::Lie("a flood of refused calls");
    }
    CallCheck::Refuse { code, message }
}

/// The harness refuses such results itself, with their path.
pub fn check_result(value: &str) -> Result<(), &'static str> {
    if value.len() > limits::RESULT_BYTES_MAX || nesting(value) > limits::NESTING_MAX {
        return Err("a result over the limit");
    }
    Ok(())
}

/// The harness adds one entry that says that the rest is dropped.
pub fn check_log(entries: usize, text: &str) -> Result<(), &'static str> {
    if entries > limits::LOG_ENTRIES_MAX || text.len() > limits::LOG_BYTES_MAX {
        return Err("more log than the limit");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::ledger::EffectState;
    use super::*;

    #[test]
    fn a_call_is_forwarded_refused_or_a_lie() {
        let now = Instant::now();
        let mut ledger = Ledger::default();
        let endowments = ["A".to_owned()];
        let check = |ledger: &Ledger, call_id, name: &str, bytes: usize| {
            let budget = CallBudget { calls_max: 3, concurrent_max: 2 };
            check_call(ledger, &endowments, budget, call_id, name, &"1".repeat(bytes))
        };
        let refused = |result: CallCheck| match result {
            CallCheck::Refuse { code, .. } => code,
            other => panic!("{other:?}"),
        };
        assert_eq!(check(&ledger, 1, "A", 2), CallCheck::Forward);
        assert_eq!(refused(check(&ledger, 1, "B", 2)), "api_not_provisioned");
        assert_eq!(refused(check(&ledger, 1, "A", limits::PARAMS_BYTES_MAX + 1)), "params_too_large");
        let budget = CallBudget { calls_max: 3, concurrent_max: 2 };
        let deep = "[".repeat(limits::NESTING_MAX + 1);
        assert_eq!(refused(check_call(&ledger, &endowments, budget, 1, "A", &deep)), "nesting_too_deep");
        assert!(check_result(&deep).is_err() && check_result(&deep[1..]).is_ok());
        assert!(check_result(&"1".repeat(limits::RESULT_BYTES_MAX + 1)).is_err());
        ledger.begin(1, "A".to_owned(), now);
        assert_eq!(check(&ledger, 1, "A", 2), CallCheck::Lie("the number of an earlier call"));
        ledger.begin(2, "A".to_owned(), now);
        assert_eq!(refused(check(&ledger, 3, "A", 2)), "api_concurrency_limit");
        assert!(ledger.end(1, EffectState::Returned, now));
        assert_eq!(check(&ledger, 3, "A", 2), CallCheck::Forward);
        ledger.begin(3, "A".to_owned(), now);
        assert_eq!(refused(check(&ledger, 4, "A", 2)), "api_call_limit");
        for call_id in 4..7 {
            ledger.refuse(call_id, "A".to_owned(), now);
        }
        assert_eq!(check(&ledger, 7, "A", 2), CallCheck::Lie("a flood of refused calls"));
    }

    #[test]
    fn a_log_is_bounded_in_entries_and_bytes() {
        assert!(check_log(limits::LOG_ENTRIES_MAX, "x").is_ok());
        assert!(check_log(limits::LOG_ENTRIES_MAX + 1, "x").is_err());
        assert!(check_log(0, &"x".repeat(limits::LOG_BYTES_MAX + 1)).is_err());
    }
}
