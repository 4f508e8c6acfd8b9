//! The configuration file: what it sets, and where in it.
//!
//! A mistake is shown by file, line and column, and by the setting where the line names one that exists. Text of the
//! file is shown only where the parser's own message quotes it, without what may be a password: a value may stand on
//! several lines, so not even what precedes a `=` is known to be a name.

use std::{
    collections::HashMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use clap::{Args as _, Command};

use super::ConfigError;
use crate::{cli::Settings, mask::without_passwords};

/// A file that was understood, to find its settings again.
pub(super) struct File {
    path: PathBuf,
    text: String,
    /// Where the value of each setting begins.
    starts: HashMap<String, usize>,
}

impl File {
    pub(super) fn read(path: &Path) -> Result<(Self, Settings), ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
        let mut file = Self { path: path.to_owned(), text, starts: HashMap::new() };
        let settings = toml::from_str(&file.text).map_err(|error| file.not_understood(&error))?;
        let table = toml::de::DeTable::parse(&file.text).map_err(|error| file.not_understood(&error))?;
        let starts =
            table.get_ref().iter().map(|(name, value)| (name.get_ref().to_string(), value.span().start));
        file.starts = starts.collect();
        Ok((file, settings))
    }

    /// What is wrong with an option, said of the line that set it; of the option itself if none did.
    pub(super) fn place(&self, option: &'static str, problem: String) -> ConfigError {
        let field = option.trim_start_matches('-').replace('-', "_");
        match self.starts.get(&field) {
            Some(&start) => self.line(start, Some(field), problem),
            None => ConfigError::Setting { setting: option, problem },
        }
    }

    fn not_understood(&self, error: &toml::de::Error) -> ConfigError {
        let start = error.span().map_or(0, |Range { start, .. }| start).min(self.text.len());
        let message = without_passwords(error.message());
        let line_start = self.line_start(start);
        let line = self.text[line_start..].lines().next().unwrap_or_default();
        let field = line.split_once('=').map(|(field, _)| field.trim());
        // A name that the message gives is no more secret here.
        let is_name =
            |field: &&str| is_setting(field) || message.starts_with(&format!("unknown field `{field}`"));
        let field = field.filter(is_name).map(str::to_owned);
        self.line(start, field, message)
    }

    fn line(&self, start: usize, field: Option<String>, message: String) -> ConfigError {
        let line_start = self.line_start(start);
        ConfigError::Line {
            path: self.path.clone(),
            line: self.text[..line_start].matches('\n').count() + 1,
            column: self.text.get(line_start..start).unwrap_or_default().chars().count() + 1,
            field,
            message,
        }
    }

    /// The start of the line that holds the byte at `at`.
    fn line_start(&self, at: usize) -> usize {
        let before = self.text.get(..at).unwrap_or_default();
        before.rfind('\n').map_or(0, |newline| newline + 1)
    }
}

/// Whether there is a setting of this name, as the command line knows them.
fn is_setting(name: &str) -> bool {
    let known = Settings::augment_args(Command::new("settings"));
    known.get_arguments().any(|argument| argument.get_id() == name)
}
