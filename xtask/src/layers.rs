//! The layer law: which crate may name which, as data, and the check that holds it.
//!
//! The table is the only place where the edges are written down; `cargo xtask layers` prints it, and a plain test
//! checks it against cargo's own view of the workspace. Development and build dependencies count like the others. The
//! check has no opinion of its own: an edge that is wanted is added to the table, in the same change, with its reason.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use cargo_metadata::TargetKind;

use crate::workspace::{BROKER_FEATURE, MEMCACHED_FEATURE, Workspace, root};

/// A member of the workspace, and the only other members that it may name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layer {
    name: &'static str,
    may_name: &'static [&'static str],
    job: &'static str,
}

const LAYERS: &[Layer] = &[
    Layer { name: "cache-core", may_name: &[], job: "one cache in one process's memory" },
    Layer { name: "resilience", may_name: &[], job: "breaker, retry, fallback, failover" },
    Layer { name: "geo", may_name: &[], job: "regions and which is closest" },
    Layer {
        name: "replication",
        may_name: &["geo", "resilience"],
        job: "records, wire, transports, the replica",
    },
    Layer {
        name: "geocache",
        may_name: &["cache-core", "geo", "replication", "resilience"],
        job: "the facade: composes the four",
    },
    Layer { name: "geocached", may_name: &["geo", "geocache", "replication"], job: "the daemon" },
    Layer {
        name: "tests",
        may_name: &["cache-core", "geo", "geocache", "replication", "resilience"],
        job: "scenarios, brokers, black-box tests",
    },
    Layer {
        name: "benches",
        may_name: &["cache-core", "geo", "geocache", "replication", "resilience"],
        job: "measurements",
    },
    Layer { name: "xtask", may_name: &[], job: "these commands" },
];

/// An external crate that only some members may name.
#[derive(Debug, Clone, Copy)]
struct Owned {
    name: &'static str,
    owners: &'static [&'static str],
    /// Where its owners must hold it behind a feature that is not a default one.
    optional_in: &'static [&'static str],
    /// The only folders of `crates/` and `tests/` whose sources name it; none for any.
    folders: &'static [&'static str],
    reason: &'static str,
}

const OWNED: &[Owned] = &[
    Owned {
        name: "lapin",
        owners: &["replication", "tests", "benches"],
        optional_in: &["replication"],
        folders: &["crates/replication/src/rabbitmq", "tests/tests/bare_client"],
        reason: "one driver behind one trait; the benches measure it raw as the baseline, and the tests are a foreign \
                 application with it",
    },
    Owned {
        name: "anyhow",
        owners: &["geocached", "tests", "benches", "xtask"],
        optional_in: &[],
        folders: &[],
        reason: "for programs; a library's errors are typed",
    },
];

/// What the law needs to know of a member.
#[derive(Debug, Clone, Default)]
struct Member {
    name: String,
    /// In the order of the manifest: the name, and whether it is optional.
    edges: Vec<(String, bool)>,
    default_features: Vec<String>,
}

/// `cargo xtask layers`.
///
/// # Errors
/// All violations, one a line.
pub(crate) fn print_and_check(workspace: &Workspace) -> Result<()> {
    for layer in LAYERS {
        let may = if layer.may_name.is_empty() { "nothing".to_owned() } else { layer.may_name.join(", ") };
        println!("{:<12} may name {may:<44} {}", layer.name, layer.job);
    }
    for owned in OWNED {
        println!("{:<12} is named by {} alone: {}", owned.name, owned.owners.join(", "), owned.reason);
    }
    let violations = all_violations(workspace)?;
    if !violations.is_empty() {
        bail!("the layer law is broken:\n  {}", violations.join("\n  "));
    }
    Ok(())
}

/// Whether `from` gets `to`, directly or through what it may name.
pub(crate) fn reaches(from: &str, to: &str) -> bool {
    let may_name = LAYERS.iter().find(|layer| layer.name == from).map_or(&[][..], |layer| layer.may_name);
    may_name.iter().any(|&name| name == to || reaches(name, to))
}

fn all_violations(workspace: &Workspace) -> Result<Vec<String>> {
    let members: Vec<Member> = workspace
        .members()
        .into_iter()
        .map(|package| Member {
            name: package.name.to_string(),
            edges: package.dependencies.iter().map(|edge| (edge.name.clone(), edge.optional)).collect(),
            default_features: package.features.get("default").cloned().unwrap_or_default(),
        })
        .collect();
    let mut violations = violations(&members);
    let mut sources = Vec::new();
    for folder in ["crates", "tests"] {
        read_sources(&root().join(folder), &mut sources)?;
    }
    violations.extend(leaks(&sources));
    for target in workspace.targets("tests", &TargetKind::Test) {
        let text = fs::read_to_string(&target.src_path)?;
        violations.extend(server_without_feature(&target.name, &text, &target.required_features));
    }
    Ok(violations)
}

/// What the table says against these members.
fn violations(members: &[Member]) -> Vec<String> {
    let mut found = Vec::new();
    for layer in LAYERS {
        if !members.iter().any(|member| member.name == layer.name) {
            found
                .push(format!("{} is in the table of layers, but is no member of the workspace", layer.name));
        }
    }
    for member in members {
        let Some(layer) = LAYERS.iter().find(|layer| layer.name == member.name) else {
            found.push(format!(
                "{} has no row in the table of layers; add it to xtask/src/layers.rs",
                member.name
            ));
            continue;
        };
        let in_workspace = |name: &str| members.iter().any(|member| member.name == name);
        for (edge, _) in member.edges.iter().filter(|(edge, _)| in_workspace(edge)) {
            if !layer.may_name.contains(&edge.as_str()) {
                found.push(format!(
                    "{} names {edge}, which the table of layers does not grant it",
                    member.name
                ));
            }
        }
        found.extend(OWNED.iter().flat_map(|owned| misuse(member, owned)));
    }
    found
}

fn misuse(member: &Member, owned: &Owned) -> Vec<String> {
    let Some((_, optional)) = member.edges.iter().find(|(edge, _)| edge == owned.name) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if !owned.owners.contains(&member.name.as_str()) {
        let owners = owned.owners.join(", ");
        found.push(format!(
            "{} names {}, which is for {owners} alone: {}",
            member.name, owned.name, owned.reason
        ));
    } else if owned.optional_in.contains(&member.name.as_str()) {
        if !optional {
            found.push(format!("{} must name {} as an optional dependency", member.name, owned.name));
        }
        if !member.default_features.is_empty() {
            found.push(format!(
                "{} must have no default feature, so that {} stays optional",
                member.name, owned.name
            ));
        }
    }
    found
}

/// The sources that name an owned crate outside its folder.
fn leaks(sources: &[(PathBuf, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for owned in OWNED.iter().filter(|owned| !owned.folders.is_empty()) {
        let is_outside =
            |path: &Path| !owned.folders.iter().any(|folder| path.starts_with(root().join(folder)));
        let folders = owned.folders.join(" and ");
        for (path, text) in sources.iter().filter(|(path, _)| is_outside(path)) {
            for (line, code) in text.lines().enumerate().map(|(line, text)| (line + 1, without_comment(text)))
            {
                if names(code, owned.name) {
                    let path = path.strip_prefix(root()).unwrap_or(path).display();
                    found.push(format!("{path}:{line} names {}, which is for {folders} alone", owned.name));
                }
            }
        }
    }
    found
}

/// A path that begins with the crate, or an import of it.
fn names(code: &str, name: &str) -> bool {
    let in_path = code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        // Behind a quote it is the target of a log line, which is text.
        let is_start = before.is_none_or(|c| !(c.is_alphanumeric() || ['_', ':', '"'].contains(&c)));
        is_start && code[at + name.len()..].trim_start().starts_with("::")
    });
    let imported = ["use ", "extern crate "].iter().any(|keyword| {
        let at = code.find(&format!("{keyword}{name}"));
        at.is_some_and(|at| code[at + keyword.len() + name.len()..].starts_with([';', ' ']))
    });
    in_path || imported
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// A test file that uses a server in a plain `cargo test`, where it may not be there.
fn server_without_feature(name: &str, text: &str, features: &[String]) -> Vec<String> {
    let servers = [
        ("a broker", BROKER_FEATURE, &["shared_url(", "Broker::start("][..]),
        ("a memcached", MEMCACHED_FEATURE, &["MemcachedServer::start"]),
    ];
    let uses = |calls: &[&str]| {
        let is_called = |line: &str| calls.iter().any(|call| without_comment(line).contains(call));
        text.lines().any(is_called)
    };
    let stray = servers
        .into_iter()
        .filter(|(_, feature, calls)| !features.iter().any(|required| required == feature) && uses(calls));
    let told = stray.map(|(server, feature, _)| {
        format!(
            "tests/tests/{name}.rs uses {server}; give it a [[test]] entry in tests/Cargo.toml with \
             required-features = [\"{feature}\"]"
        )
    });
    told.collect()
}

fn read_sources(folder: &Path, into: &mut Vec<(PathBuf, String)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            read_sources(&path, into)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            into.push((path, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
