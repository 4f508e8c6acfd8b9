//! How a figure is printed, and how a table of them is written in Markdown.

use std::collections::BTreeSet;

use crate::report::Figure;

/// Prints a figure, its own spread, its ratios, and how it stands to its targets.
pub fn print(figure: &Figure, spread: Option<(f64, f64)>) {
    let label = format!("{} ({})", figure.name, figure.unit);
    print!("{label:<48} {}", number(figure.value));
    if let Some((low, high)) = spread {
        print!(" ({}–{})", number(low).trim(), number(high).trim());
    }
    println!("  {}", figure.verdict());
    for (peer, ratio) in &figure.peers {
        let spread = ratio.spread.map_or_else(String::new, |(low, high)| {
            format!("({}–{})", number(low).trim(), number(high).trim())
        });
        let verdict = ratio.target.map_or_else(String::new, |target| target.verdict(ratio.median));
        println!("  {:>7} x {peer:<16} {spread:<18} {verdict}", number(ratio.median));
    }
}

/// Figures as a Markdown table: a column of their values under the name of `whose` they are, and one of ratios for each
/// peer that any of them has. What misses its target is in bold.
pub fn markdown(title: &str, whose: &str, figures: &[Figure]) -> String {
    let peers: BTreeSet<&str> = figures.iter().flat_map(|figure| figure.peers.keys().copied()).collect();
    let mut text = format!("| {title} | {whose} |");
    peers.iter().for_each(|peer| text += &format!(" {peer} |"));
    text += &format!("\n|---|{}\n", "--:|".repeat(peers.len() + 1));
    for figure in figures {
        let mark = if figure.misses_target() { "**" } else { "" };
        text += &format!("| {} | {mark}{}{mark} {} |", figure.name, number(figure.value).trim(), figure.unit);
        for peer in &peers {
            let cell = figure.peers.get(peer).map_or_else(String::new, |ratio| {
                let spread = ratio.spread.map_or_else(String::new, |(low, high)| {
                    format!(" ({}–{})", number(low).trim(), number(high).trim())
                });
                let is_missed = ratio.target.is_some_and(|target| !target.holds(ratio.median));
                let mark = if is_missed { "**" } else { "" };
                format!("{mark}{}{mark}{spread}", number(ratio.median).trim())
            });
            text += &format!(" {cell} |");
        }
        text.push('\n');
    }
    text
}

/// The targets that were missed, a line each.
pub fn missed(figures: &[Figure]) -> String {
    let mut text = String::new();
    for figure in figures {
        let (name, unit) = (&figure.name, &figure.unit);
        if let Some(target) = figure.target.filter(|target| !target.holds(figure.value)) {
            text += &format!("* {name}: {} {unit}, target {}\n", number(figure.value).trim(), target.text());
        }
        for (peer, ratio) in &figure.peers {
            if let Some(target) = ratio.target.filter(|target| !target.holds(ratio.median)) {
                text += &format!(
                    "* {name}: {} of {peer}, target {}\n",
                    number(ratio.median).trim(),
                    target.text()
                );
            }
        }
    }
    text
}

/// Three digits that count, and no more than that behind the point.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        large if large >= 10.0 => 1,
        small if small >= 0.1 => 2,
        _ => 3,
    };
    format!("{value:>7.digits$}")
}
