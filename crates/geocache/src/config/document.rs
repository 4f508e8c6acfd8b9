//! A TOML text that knows where in it each setting stands.

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use super::{error::ConfigError, mask::without_passwords};

/// A TOML text, to find again where in it a setting stands: for programs whose own settings are checked after they were read.
///
/// A mistake is shown by file, line and column, and by the setting where one stands there. Text of the file is shown only
/// where the parser's own message quotes it, without what may be a password.
///
/// ```
/// use geocache::config::Document;
///
/// #[derive(serde::Deserialize)]
/// struct Settings {
///     threads: u32,
/// }
///
/// let document = Document::of_text("# a comment\nthreads = 0\n");
/// let settings: Settings = document.parse()?;
/// if settings.threads == 0 {
///     let error = document.error_at("threads", "is 0; use 1 or more").expect("it is set there");
///     assert_eq!(error.to_string(), r#"line 2, column 11, setting "threads": is 0; use 1 or more"#);
/// }
/// # Ok::<(), geocache::config::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Document {
    path: Option<PathBuf>,
    text: String,
    /// In the order of the text. Empty where it is no TOML.
    entries: Vec<Entry>,
}

/// A setting or a table, as it stands in the text.
#[derive(Clone)]
struct Entry {
    /// With the names of its tables, joined by dots.
    name: String,
    key: Range<usize>,
    value: Range<usize>,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError::File`]; [`ConfigError::Line`] where it is not UTF-8.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = fs::read(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let before = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
            let before = Self { path: Some(path.to_owned()), ..Self::of_text(before) };
            before.line(good, None, "is not UTF-8 from here on; save the file as UTF-8".to_owned())
        })?;
        Ok(Self { path: Some(path.to_owned()), ..Self::of_text(text) })
    }

    /// A text that is in no file.
    pub fn of_text(text: impl Into<String>) -> Self {
        let text = text.into();
        let mut entries = Vec::new();
        if let Ok(table) = DeTable::parse(&text) {
            list(table.get_ref(), "", &mut entries);
        }
        Self { path: None, text, entries }
    }

    /// The settings that it holds.
    ///
    /// # Errors
    /// [`ConfigError::Line`], where it is no TOML, or a value is not of its type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConfigError> {
        toml::from_str(&self.text).map_err(|error| self.not_understood(&error))
    }

    /// What is wrong with the value of a setting, said of the place where it is set; `None` where it is not set here. The setting
    /// of a table is named with the table, as `rabbitmq.heartbeat`.
    pub fn error_at(&self, setting: &str, problem: impl Into<String>) -> Option<ConfigError> {
        let entry = self.entries.iter().find(|entry| entry.name == setting)?;
        Some(self.line(entry.value.start, Some(setting.to_owned()), problem.into()))
    }

    fn not_understood(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |Range { start, .. }| start).min(self.text.len());
        let problem = without_passwords(error.message());
        self.line(start, self.setting_at(start, &problem), problem)
    }

    /// The innermost setting that stands at the byte at `at`. What is no plain name is told only where the message does.
    fn setting_at(&self, at: usize, problem: &str) -> Option<String> {
        let holds = |range: &Range<usize>| range.contains(&at);
        let around = self.entries.iter().filter(|entry| holds(&entry.key) || holds(&entry.value));
        let name = match around.max_by_key(|entry| entry.name.len()) {
            Some(entry) => entry.name.clone(),
            // The text is no TOML, or a name stands twice in it.
            None => {
                let line = self.text[self.line_start(at)..].lines().next().unwrap_or_default();
                let name = line.split_once('=')?.0.trim();
                problem.starts_with("duplicate").then(|| name.to_owned())?
            }
        };
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        (is_plain && name.len() <= 64).then_some(name)
    }

    fn line(&self, start: usize, setting: Option<String>, problem: String) -> ConfigError {
        let line_start = self.line_start(start);
        ConfigError::Line {
            path: self.path.clone(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text.get(line_start..start).unwrap_or_default().chars().count() + 1,
            setting,
            problem,
        }
    }

    /// The start of the line that holds the byte at `at`.
    fn line_start(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        before.rfind('\n').map_or(0, |newline| newline + 1)
    }
}

impl std::fmt::Debug for Document {
    /// Without the text, which may hold passwords.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").field("path", &self.path).finish_non_exhaustive()
    }
}

fn list(table: &DeTable<'_>, before: &str, entries: &mut Vec<Entry>) {
    for (key, value) in table {
        let name = format!("{before}{}", key.get_ref());
        entries.push(Entry { name: name.clone(), key: key.span(), value: value.span() });
        if let DeValue::Table(inner) = value.get_ref() {
            list(inner, &format!("{name}."), entries);
        }
    }
}
