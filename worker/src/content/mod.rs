//! What is in an image, and how a builder is told: pure functions from a recipe and a set of files to the user-data that
//! provisions the builder.
//!
//! The files are data (`files`): scripts, and lists of what they install. The built-in ones stand in `worker/content/`;
//! a folder of the site replaces or extends them by name. Nothing secret is among them.

mod files;
mod recipe;
mod render;
mod runner;
#[cfg(test)]
mod tests;

pub(crate) use files::Content;
pub(crate) use recipe::Recipe;
pub(crate) use render::{Login, UserData, login_only, render, sha256};
pub(crate) use runner::{Runner, choose};

/// Content that no image can be made of.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ContentError {
    /// A folder or a file of it that cannot be read.
    #[error("content {path}: {reason}")]
    Unreadable { path: String, reason: String },
    /// A name that says nothing.
    #[error(
        "content {0}: name it NN-NAME.sh for a script, or NAME.packages, .snaps, .services, .sysctl or .users for a list"
    )]
    Name(String),
    /// A line of a list, counted from 1.
    #[error("content {file}, line {line}: {reason}")]
    Line { file: String, line: usize, reason: String },
    /// A choice of the build or of the site.
    #[error("{field}: {reason}")]
    Choice { field: &'static str, reason: String },
    /// More than Nova takes, in bytes of Base64.
    #[error(
        "the user-data has {size} bytes of Base64, compressed, where Nova takes {most}; largest of the content: {largest}"
    )]
    TooLarge { size: usize, most: usize, largest: String },
}
