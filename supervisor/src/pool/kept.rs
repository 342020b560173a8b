//! Things that are kept for a key: the most recently used of a key is given out first, and the least
//! recently used of all goes first.
//!
//! Pure: the caller brings the clock, bounds what is kept, and ends what comes back.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Instant;

pub struct Kept<K, V> {
    /// Of each key in the order of their last use.
    by_key: HashMap<K, Vec<Entry<V>>>,
    /// The key of every entry, by its age: the smallest was used least recently.
    by_age: BTreeMap<u64, K>,
    next_age: u64,
    bytes: u64,
}

struct Entry<V> {
    age: u64,
    since: Instant,
    bytes: u64,
    value: V,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Kept<K, V> {
        Kept { by_key: HashMap::new(), by_age: BTreeMap::new(), next_age: 0, bytes: 0 }
    }
}

impl<K: Clone + Eq + Hash, V> Kept<K, V> {
    pub fn total(&self) -> usize {
        self.by_age.len()
    }

    /// What all of them hold.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn count(&self, key: &K) -> usize {
        self.by_key.get(key).map_or(0, Vec::len)
    }

    pub fn put(&mut self, key: K, value: V, bytes: u64, now: Instant) {
        let age = self.next_age;
        self.next_age += 1;
        self.bytes += bytes;
        self.by_age.insert(age, key.clone());
        self.by_key.entry(key).or_default().push(Entry { age, since: now, bytes, value });
    }

    /// The most recently used value of the key that is still `usable`; those before it are dropped.
    pub fn take(&mut self, key: &K, usable: impl Fn(&V) -> bool) -> Option<V> {
        loop {
            let value = self.pop(key, Vec::pop)?;
            if usable(&value) {
                return Some(value);
            }
        }
    }

    /// The value of the key that `take` looks at first.
    pub fn first(&mut self, key: &K) -> Option<&mut V> {
        self.by_key.get_mut(key)?.last_mut().map(|entry| &mut entry.value)
    }

    /// When the least recently used was last used.
    pub fn oldest(&self) -> Option<Instant> {
        let key = self.by_age.first_key_value()?.1;
        self.by_key.get(key)?.first().map(|entry| entry.since)
    }

    /// Gives up the least recently used.
    pub fn evict(&mut self) -> Option<(K, V)> {
        let key = self.by_age.first_key_value()?.1.clone();
        let value = self.pop(&key, |entries| (!entries.is_empty()).then(|| entries.remove(0)))?;
        Some((key, value))
    }

    /// Gives up those that were last used before `before`.
    pub fn expire(&mut self, before: Instant) -> Vec<(K, V)> {
        let mut expired = Vec::new();
        while self.oldest().is_some_and(|oldest| oldest < before) {
            expired.extend(self.evict());
        }
        expired
    }

    /// Counts those of a key as used now.
    pub fn renew(&mut self, key: &K, now: Instant) {
        for entry in self.by_key.get_mut(key).into_iter().flatten() {
            self.by_age.remove(&entry.age);
            entry.age = self.next_age;
            entry.since = now;
            self.by_age.insert(entry.age, key.clone());
            self.next_age += 1;
        }
    }

    /// Gives up those that `chosen` names.
    pub fn remove(&mut self, chosen: impl Fn(&K, &V) -> bool) -> Vec<V> {
        let mut removed = Vec::new();
        self.by_key.retain(|key, entries| {
            for entry in entries.extract_if(.., |entry| chosen(key, &entry.value)) {
                self.by_age.remove(&entry.age);
                self.bytes -= entry.bytes;
                removed.push(entry.value);
            }
            !entries.is_empty()
        });
        removed
    }

    fn pop(&mut self, key: &K, choose: impl Fn(&mut Vec<Entry<V>>) -> Option<Entry<V>>) -> Option<V> {
        let entries = self.by_key.get_mut(key)?;
        let entry = choose(entries)?;
        if entries.is_empty() {
            self.by_key.remove(key);
        }
        self.by_age.remove(&entry.age);
        self.bytes -= entry.bytes;
        Some(entry.value)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_most_recently_used_of_a_key_is_given_and_the_least_recently_used_of_all_goes() {
        let start = Instant::now();
        let mut kept = Kept::default();
        for (number, key) in ['a', 'b', 'a', 'b'].into_iter().enumerate() {
            kept.put(key, number, 10, start + Duration::from_secs(number as u64));
        }
        assert_eq!((kept.total(), kept.bytes(), kept.count(&'a')), (4, 40, 2));
        assert_eq!(kept.first(&'a'), Some(&mut 2));
        assert_eq!(kept.take(&'a', |_| true), Some(2));
        assert_eq!(kept.oldest(), Some(start));
        assert_eq!(kept.evict(), Some(('a', 0)));
        assert_eq!(kept.evict(), Some(('b', 1)));
        assert_eq!(kept.take(&'a', |_| true), None);
        assert_eq!((kept.total(), kept.bytes()), (1, 10));
    }

    #[test]
    fn what_is_not_usable_is_not_given_out() {
        let mut kept = Kept::default();
        for value in 1..=3 {
            kept.put('a', value, 1, Instant::now());
        }
        assert_eq!(kept.take(&'a', |value| *value == 1), Some(1));
        assert_eq!((kept.total(), kept.bytes()), (0, 0));
    }

    #[test]
    fn what_was_not_used_for_long_expires_unless_it_is_renewed() {
        let start = Instant::now();
        let second = |number| start + Duration::from_secs(number);
        let mut kept = Kept::default();
        for number in 0..4 {
            kept.put(number, number, 1, second(number));
        }
        kept.renew(&0, second(9));
        assert_eq!(kept.expire(second(3)), [(1, 1), (2, 2)]);
        assert_eq!(kept.oldest(), Some(second(3)));
        assert_eq!([kept.evict(), kept.evict(), kept.evict()], [Some((3, 3)), Some((0, 0)), None]);
    }

    #[test]
    fn what_is_chosen_comes_out() {
        let mut kept = Kept::default();
        for value in 0..4 {
            kept.put(value % 2, value, 1, Instant::now());
        }
        assert_eq!(kept.remove(|key, value| *key == 1 && *value < 3), [1]);
        assert_eq!((kept.total(), kept.count(&1), kept.bytes()), (3, 1, 3));
    }

    proptest! {
        #[test]
        fn a_value_only_ever_goes_to_its_own_key_and_once(steps in prop::collection::vec((0_u8..4, 0_u8..3), 0..200)) {
            let mut kept = Kept::default();
            let mut out = std::collections::HashSet::new();
            let mut put = 0;
            for (number, (key, step)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        kept.put(key, (key, number), 7, Instant::now());
                        put += 1;
                    }
                    1 => if let Some((owner, number)) = kept.take(&key, |_| true) {
                        prop_assert_eq!(owner, key);
                        prop_assert!(out.insert(number));
                    }
                    _ => if let Some((key, (owner, number))) = kept.evict() {
                        prop_assert_eq!(owner, key);
                        prop_assert!(out.insert(number));
                    }
                }
                prop_assert_eq!(kept.total(), put - out.len());
                prop_assert_eq!(kept.bytes(), 7 * kept.total() as u64);
                prop_assert_eq!(kept.oldest().is_some(), kept.total() > 0);
            }
        }
    }
}
