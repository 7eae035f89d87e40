//! Describes a setting: its name, default and help text.

/// One row of [`GROUPS`](super::GROUPS).
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// An older name that is also read.
    pub alias: Option<&'static str>,
    /// The placeholder of the value in `--help`.
    pub placeholder: &'static str,
    pub default: Option<&'static str>,
    /// Describes the behaviour without a value, if there is no `default`.
    pub unset: &'static str,
    pub help: &'static str,
    pub secret: bool,
}

/// Settings that belong together, under one heading.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    pub title: &'static str,
    pub settings: &'static [Setting],
}

impl Setting {
    pub(super) const fn new(name: &'static str, placeholder: &'static str, help: &'static str) -> Self {
        Self { name, alias: None, placeholder, default: None, unset: "unset", help, secret: false }
    }

    pub(super) const fn default_to(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    pub(super) const fn when_unset(self, unset: &'static str) -> Self {
        Self { unset, ..self }
    }

    pub(super) const fn alias(self, alias: &'static str) -> Self {
        Self { alias: Some(alias), ..self }
    }

    pub(super) const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// `JWT_SECRET` is `--jwt-secret`.
    pub fn flag(&self) -> String {
        flag_of(self.name)
    }

    pub fn alias_flag(&self) -> Option<String> {
        self.alias.map(flag_of)
    }

    /// The default as `--help` and the documentation show it.
    pub fn shown_default(&self) -> &'static str {
        self.default.unwrap_or(self.unset)
    }
}

fn flag_of(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}
