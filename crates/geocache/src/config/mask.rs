//! Leaves passwords of broker URIs out of what is printed.

/// `text`, in which a URI's user and password are replaced by stars.
///
/// Where a password ends cannot be told for sure (it may hold quotes, spaces and more `@`s), so too much is taken
/// rather than too little: on each line, all from the first `://` up to the last `@`; without an `@`, up to the line's
/// end.
///
/// ```
/// let shown = geocache::config::without_passwords("no command 'amqp://ann:hunter2@broker'");
/// assert_eq!(shown, "no command 'amqp://***@broker'");
/// ```
pub fn without_passwords(text: &str) -> String {
    let lines: Vec<String> = text.trim_end().lines().map(line).collect();
    lines.join("\n")
}

fn line(line: &str) -> String {
    let Some(scheme) = line.find("://") else { return line.to_owned() };
    let (before, after) = line.split_at(scheme);
    match after.rfind('@') {
        Some(at) => format!("{before}://***{}", &after[at..]),
        None => format!("{before}://***"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_may_be_a_password_is_left_out() {
        for (text, shown) in [
            ("", ""),
            ("plain", "plain"),
            ("a 'amqp://u:hunter2@h' b", "a 'amqp://***@h' b"),
            ("a 'amqp://u:hunter2@x@h' b", "a 'amqp://***@h' b"),
            ("'amqp://u:hunter2' b", "'amqp://***"),
            ("amqp://u:hunter2@a amqp://u:hunter2@b\nc d@e\n", "amqp://***@b\nc d@e"),
            ("x\namqps://u:hunter2 @h\ny", "x\namqps://***@h\ny"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
