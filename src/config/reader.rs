//! Parses settings and collects their errors.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use super::{ConfigError, Problem, Setting, Sources, sources::SourceKind, table};

/// Reads settings by name. An invalid setting is recorded and replaced by its type's default. No caller uses that
/// default, because [`Reader::finish`] returns only the errors then.
pub(super) struct Reader<'a> {
    sources: &'a Sources,
    problems: Vec<Problem>,
    warnings: Vec<String>,
    #[cfg(test)]
    pub(super) names_read: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        Self {
            sources,
            problems: Vec::new(),
            warnings: Vec::new(),
            #[cfg(test)]
            names_read: Vec::new(),
        }
    }

    pub(super) fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() { Ok(value) } else { Err(ConfigError(self.problems)) }
    }

    pub(super) fn problem(&mut self, setting: &'static str, text: impl Into<String>) {
        self.problems.push(Problem { setting, text: text.into() });
    }

    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    pub(super) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The text as it was written, with the white space around it.
    pub(super) fn raw(&mut self, name: &'static str) -> Option<&'a str> {
        self.text_and_source(name).map(|(text, _)| text)
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<&'a str> {
        self.raw(name).map(str::trim)
    }

    /// `None` means that the setting is unset, or that it is invalid and recorded.
    pub(super) fn parse<T>(
        &mut self,
        name: &'static str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let (text, source) = self.text_and_source(name)?;
        let value = parse(text.trim());
        if value.is_none() {
            self.problem(name, format!("must be {expected}{}", read_from(source)));
        }
        value
    }

    /// Like [`parse`](Self::parse), but the parser returns the reason of the error. The reason must not contain a part
    /// of the text.
    pub(super) fn check<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, source) = self.text_and_source(name)?;
        match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.problem(name, format!("{reason}{}", read_from(source)));
                None
            }
        }
    }

    pub(super) fn bool(&mut self, name: &'static str) -> bool {
        self.parse(name, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        })
        .unwrap_or_default()
    }

    pub(super) fn number<T>(&mut self, name: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.parse(name, &expected, |text| text.parse().ok().filter(|number| range.contains(number)))
    }

    pub(super) fn duration(&mut self, name: &'static str, range: RangeInclusive<Duration>) -> Duration {
        let expected = format!(
            "a duration with its unit, such as 500ms, 10s or 1m, from {} to {}",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end()),
        );
        self.parse(name, &expected, |text| {
            humantime::parse_duration(text).ok().filter(|duration| range.contains(duration))
        })
        .unwrap_or_default()
    }

    /// The setting must be one of these words.
    pub(super) fn choice<T: Copy>(&mut self, name: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        self.parse(name, &words.join(" or "), |text| {
            choices.iter().find(|(word, _)| text.eq_ignore_ascii_case(word)).map(|(_, choice)| *choice)
        })
    }

    fn text_and_source(&mut self, name: &'static str) -> Option<(&'a str, Option<SourceKind>)> {
        #[cfg(test)]
        self.names_read.push(name);
        let setting: &'static Setting = table::all().find(|setting| setting.name == name)?;
        let Some(found) = self.sources.find(setting) else {
            return setting.default.map(|text| (text, None));
        };
        if found.text.is_none() {
            self.problem(name, "must be valid UTF-8");
        }
        Some((found.text?, Some(found.source)))
    }
}

/// Most settings come from the environment, so an error names only the other sources.
fn read_from(source: Option<SourceKind>) -> &'static str {
    match source {
        Some(SourceKind::Flag) => " (given as a flag)",
        Some(SourceKind::DotEnv) => " (read from .env)",
        Some(SourceKind::Environment) | None => "",
    }
}
