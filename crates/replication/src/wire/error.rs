//! Why bytes are not a frame that this node can read.

use geo::NameError;

/// Why bytes are not a frame that this node can read; offsets count from the frame's first byte.
///
/// The caller acknowledges the frame in every case (the same bytes fail again), and counts it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A newer node says something that this one does not know: skip it.
    #[error("frames of kind {kind} are not known here; skip it, or upgrade this node")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// The sender writes another major version: refuse it and report the sender.
    #[error(
        "the frame has wire version {major}, this node reads {}; run versions that share one",
        super::MAJOR
    )]
    Version {
        /// The sender's major version.
        major: u8,
    },
    /// The body is written in a way that this node cannot read: refuse it and report the sender.
    #[error(
        "the frame's flags {flags:#04x} change the body in a way that is not known here; upgrade this node"
    )]
    Flags {
        /// All flags of the frame.
        flags: u8,
    },
    /// Not one of our frames: some other application's message.
    #[error("not a frame: it begins with {found:02x?}")]
    Magic {
        /// What it begins with.
        found: [u8; 2],
    },
    /// Longer than is read here, by itself or once it is expanded.
    #[error("the frame has {bytes} bytes; at most {max} are read")]
    TooLong {
        /// The frame's length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes were changed on the way.
    #[error("the frame's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// What the frame carries.
        found: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// The bytes end before the field does, or a length or count claims more than remains.
    #[error("at byte {offset} of the frame, {what} needs {needed} bytes and {left} are left")]
    Truncated {
        /// Where the field begins.
        offset: usize,
        /// The field.
        what: &'static str,
        /// How many bytes it needs at least.
        needed: u64,
        /// How many remain.
        left: usize,
    },
    /// A name in the header breaks the rule of names.
    #[error("at byte {offset} of the frame, {what}: {source}")]
    Name {
        /// Where the name begins.
        offset: usize,
        /// Which name.
        what: &'static str,
        /// How it breaks the rule.
        source: NameError,
    },
    /// A field holds what it must not.
    #[error("at byte {offset} of the frame, {what}")]
    Malformed {
        /// Where the field begins.
        offset: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}
