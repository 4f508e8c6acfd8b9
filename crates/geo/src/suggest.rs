//! Names that were perhaps meant: what an error suggests instead of one that is unknown.

/// So many are suggested.
const SUGGESTIONS_MAX: usize = 3;

/// The names nearest to `wrong`, the nearest first; of names that are nothing like it, none.
///
/// Near means few single-character edits (Levenshtein), at most a third of the name's length; or that one begins
/// with the other, as `us-east` and `us-east-1` do.
pub(crate) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let wrong = wrong.trim().to_lowercase().replace(['_', ' '], "-");
    // Beyond any name's length nothing is near, and the work is bounded.
    if wrong.is_empty() || wrong.len() > 2 * crate::NAME_BYTES_MAX {
        return Vec::new();
    }
    let mut near: Vec<(usize, &str)> = names
        .filter_map(|name| {
            let edits = edits(&wrong, name);
            let prefix = name.starts_with(&wrong) || wrong.starts_with(name);
            (prefix || edits <= wrong.chars().count() / 3).then_some((edits, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(SUGGESTIONS_MAX).map(|(_, name)| name).collect()
}

/// `; did you mean a, b or c?`, or nothing.
pub(crate) fn question<T: AsRef<str>>(names: &[T]) -> String {
    let Some((last, rest)) = names.split_last() else { return String::new() };
    let rest: Vec<&str> = rest.iter().map(AsRef::as_ref).collect();
    let or = if rest.is_empty() { "" } else { " or " };
    format!("; did you mean {}{or}{}?", rest.join(", "), last.as_ref())
}

/// How many characters must be inserted, deleted or replaced to turn one into the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, of_a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, of_b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(of_a != *of_b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("us-east", "us-west", 2)]
        {
            assert_eq!(edits(a, b), count, "{a} {b}");
            assert_eq!(edits(b, a), count, "{b} {a}");
        }
    }

    #[test]
    fn near_names_come_nearest_first_and_far_ones_not_at_all() {
        let names = || ["us-east", "us-east-1", "eu-central", "ap-south", "us-west"].into_iter();
        assert_eq!(nearest("us-eats", names()), ["us-east"]);
        assert_eq!(nearest("EU_Central", names()), ["eu-central"]);
        assert_eq!(nearest("us-east-9", names()), ["us-east-1", "us-east"]);
        assert_eq!(nearest("us-est", names()), ["us-east", "us-west"]);
        assert!(nearest("atlantis", names()).is_empty());
        assert!(nearest("", names()).is_empty());
        assert!(nearest(&"u".repeat(100_000), names()).is_empty());
    }

    #[test]
    fn the_question_lists_what_there_is() {
        assert_eq!(question::<&str>(&[]), "");
        assert_eq!(question(&["a"]), "; did you mean a?");
        assert_eq!(question(&["a", "b", "c"]), "; did you mean a, b or c?");
    }
}
