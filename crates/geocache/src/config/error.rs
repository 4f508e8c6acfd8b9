//! Why a configuration cannot be used: where it was said, and what to do.

use std::{io, path::PathBuf};

/// Why a configuration cannot be used: mend what it names. No message holds a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read; see that it is there, and that this process may read it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line of the file, or of the text, is wrong.
    #[error("{}line {line}, column {column}{}: {problem}", file(path), named(setting))]
    Line {
        /// The file; `None` of a text that is in none.
        path: Option<PathBuf>,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1.
        column: usize,
        /// The setting, such as `rabbitmq.heartbeat`, where it is known.
        setting: Option<String>,
        /// What is wrong, and what is right.
        problem: String,
    },
    /// A variable of the environment is wrong.
    #[error("the environment variable {variable}: {problem}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong with its value, and what is right.
        problem: String,
    },
    /// A setting that was made nowhere is needed, or does not go with the others.
    #[error("setting {setting:?}: {problem}")]
    Setting {
        /// The setting, such as `rabbitmq.uris`.
        setting: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

fn file(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| format!("{}, ", path.display())).unwrap_or_default()
}

fn named(setting: &Option<String>) -> String {
    setting.as_ref().map(|setting| format!(", setting {setting:?}")).unwrap_or_default()
}
