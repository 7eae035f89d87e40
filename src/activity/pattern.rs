//! Patterns, by which a client says which types of events it wants.

use std::{borrow::Borrow, collections::BTreeSet, fmt, sync::Arc};

use super::event_type::{EventType, TypeError, is_separator};

/// A type (`batch:start`), a prefix (`batch:*`, `agent.*`), or `*` for all types that do not have a high volume.
///
/// A pattern borrows as its *stem*: the type, the prefix with its separator, or the empty text for `*`. A map with
/// patterns as keys can be asked with the stems in [`Pattern::candidates`] directly.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    stem: Arc<str>,
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern must be an event type, a prefix with * behind \".\" or \":\" (such as batch:*), or *")]
    Malformed,
    #[error("a pattern must be at most {} bytes", EventType::MAX_BYTES)]
    TooLong,
    #[error("no activity event can have a type that this pattern matches, because such types are reserved")]
    Reserved,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let error = |error| match error {
            TypeError::TooLong => PatternError::TooLong,
            TypeError::Malformed => PatternError::Malformed,
            TypeError::Reserved => PatternError::Reserved,
        };
        let stem = match text.strip_suffix('*') {
            Some("") => "",
            Some(prefix) if prefix.ends_with(is_separator) => {
                // The prefix is right if a type with one more letter is right.
                EventType::parse(&format!("{prefix}x")).map_err(error)?;
                prefix
            }
            Some(_) => return Err(PatternError::Malformed),
            None => {
                EventType::parse(text).map_err(error)?;
                text
            }
        };
        Ok(Self { stem: stem.into() })
    }

    /// Returns whether this pattern selects events of a type. `*` does not select types with a high volume.
    pub fn matches(&self, event_type: &EventType, high_volume: bool) -> bool {
        match &*self.stem {
            "" => !high_volume,
            prefix if prefix.ends_with(is_separator) => event_type.as_str().starts_with(prefix),
            exact => event_type.as_str() == exact,
        }
    }

    /// The stems of all patterns that match a type, each once, the most specific one first.
    pub fn candidates(event_type: &EventType, high_volume: bool) -> impl Iterator<Item = &str> {
        let any = (!high_volume).then_some("");
        std::iter::once(event_type.as_str()).chain(event_type.prefixes()).chain(any)
    }
}

impl Borrow<str> for Pattern {
    fn borrow(&self) -> &str {
        &self.stem
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.stem)?;
        if self.stem.is_empty() || self.stem.ends_with(is_separator) { f.write_str("*") } else { Ok(()) }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// The patterns of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PatternSet(BTreeSet<Pattern>);

/// A connection would have more patterns than [`PatternSet::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a connection can have at most {} patterns; unsubscribe from some, or use a prefix such as batch:*",
    PatternSet::MAX
)]
pub struct TooManyPatterns;

impl PatternSet {
    /// The most patterns that a connection can have.
    pub const MAX: usize = 64;

    /// Adds patterns, and returns those that are new. With an error, nothing is added.
    pub fn add(
        &mut self,
        patterns: impl IntoIterator<Item = Pattern>,
    ) -> Result<Vec<Pattern>, TooManyPatterns> {
        let mut new = BTreeSet::new();
        for pattern in patterns {
            if !self.0.contains(&pattern) {
                new.insert(pattern);
            }
            if self.0.len() + new.len() > Self::MAX {
                return Err(TooManyPatterns);
            }
        }
        self.0.extend(new.iter().cloned());
        Ok(new.into_iter().collect())
    }

    /// Returns whether the set contained the pattern.
    pub fn remove(&mut self, pattern: &Pattern) -> bool {
        self.0.remove(pattern)
    }

    /// Returns whether one of the patterns matches a type.
    pub fn matches(&self, event_type: &EventType, high_volume: bool) -> bool {
        Pattern::candidates(event_type, high_volume).any(|stem| self.0.contains(stem))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn a_pattern_is_a_type_a_prefix_or_everything() {
        for text in ["*", "batch:*", "agent.*", "a.b:*", "error", "batch:start", "log.line"] {
            assert_eq!(pattern(text).to_string(), text);
        }
        for text in ["", "**", "a*", "*a", "a.**", "a.*.b", ".*", ":*", "A.*", "a..*", "batch:st*"] {
            assert_eq!(Pattern::parse(text), Err(PatternError::Malformed), "{text}");
        }
        for text in ["task:*", "live:updated", "admin:*", "ping"] {
            assert_eq!(Pattern::parse(text), Err(PatternError::Reserved), "{text}");
        }
        assert_eq!(Pattern::parse(&format!("{}.*", "a".repeat(64))), Err(PatternError::TooLong));
    }

    #[test]
    fn high_volume_types_match_only_when_they_are_named() {
        let line = EventType::parse("log.line").expect("a type");
        for (text, high_volume, matches) in
            [("*", true, false), ("*", false, true), ("log.*", true, true), ("log.line", true, true)]
        {
            assert_eq!(pattern(text).matches(&line, high_volume), matches, "{text}");
        }
        assert!(!pattern("lo.*").matches(&line, false) && !pattern("log.lin").matches(&line, false));
    }

    #[test]
    fn a_set_has_a_limit_and_a_refused_addition_changes_nothing() {
        let mut set = PatternSet::default();
        let many =
            |range: std::ops::Range<usize>| range.map(|n| pattern(&format!("a.x{n}"))).collect::<Vec<_>>();
        assert_eq!(set.add(many(0..64)).map(|new| new.len()), Ok(64));
        assert_eq!(set.add(many(0..64)), Ok(Vec::new()));
        assert_eq!(set.add(many(64..65)), Err(TooManyPatterns));
        assert!(set.remove(&pattern("a.x0")) && !set.remove(&pattern("a.x0")));
        assert_eq!(set.add(many(64..66)), Err(TooManyPatterns));
        assert_eq!(set.add(many(64..65)), Ok(many(64..65)));
        assert_eq!(set.len(), 64);
    }

    fn types() -> impl Strategy<Value = EventType> {
        prop::collection::vec(("[ab]{1,2}", "[.:]"), 1..5).prop_map(|parts| {
            let text: String =
                parts.iter().flat_map(|(segment, separator)| [&**segment, &**separator]).collect();
            EventType::parse(text.trim_end_matches(is_separator)).expect("a type")
        })
    }

    fn patterns() -> impl Strategy<Value = Pattern> {
        (types(), 0..3).prop_map(|(event_type, kind)| match kind {
            0 => pattern("*"),
            1 => pattern(event_type.as_str()),
            _ => pattern(&format!("{event_type}:*")),
        })
    }

    proptest! {
        #[test]
        fn the_candidates_are_exactly_the_patterns_that_match(
            patterns in prop::collection::vec(patterns(), 0..40),
            event_type in types(),
            high_volume: bool,
        ) {
            let candidates: Vec<&str> = Pattern::candidates(&event_type, high_volume).collect();
            let once: BTreeSet<&str> = candidates.iter().copied().collect();
            prop_assert_eq!(once.len(), candidates.len());
            let by_stem: HashMap<Pattern, ()> = patterns.iter().cloned().map(|pattern| (pattern, ())).collect();
            for pattern in &patterns {
                let found = candidates.iter().any(|stem| by_stem.get_key_value(*stem).is_some_and(|(key, ())| key == pattern));
                prop_assert_eq!(found, pattern.matches(&event_type, high_volume), "{} {}", pattern, event_type);
            }
            let set = PatternSet(patterns.iter().cloned().collect());
            let expected = patterns.iter().any(|pattern| pattern.matches(&event_type, high_volume));
            prop_assert_eq!(set.matches(&event_type, high_volume), expected);
        }
    }
}
