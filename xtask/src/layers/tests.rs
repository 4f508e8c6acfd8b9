use super::*;

/// A workspace that keeps the law: each member names all that it may.
fn lawful() -> Vec<Member> {
    LAYERS
        .iter()
        .map(|layer| Member {
            name: layer.name.to_owned(),
            edges: layer.may_name.iter().map(|&name| (name.to_owned(), false)).collect(),
            default_features: Vec::new(),
        })
        .collect()
}

fn member<'a>(members: &'a mut [Member], name: &str) -> &'a mut Member {
    members.iter_mut().find(|member| member.name == name).unwrap()
}

#[test]
fn the_workspace_keeps_the_law() {
    let violations = all_violations(&Workspace::load().unwrap()).unwrap();
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn members_that_name_what_they_may_break_nothing() {
    let mut members = lawful();
    member(&mut members, "replication").edges.push(("lapin".into(), true));
    member(&mut members, "cache-core").edges.push(("lru".into(), false));
    assert_eq!(violations(&members), Vec::<String>::new());
}

#[test]
fn a_wrong_edge_is_told_with_both_its_ends() {
    let mut members = lawful();
    member(&mut members, "cache-core").edges.push(("geo".into(), false));
    let found = violations(&members);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("cache-core names geo"), "{found:?}");
}

#[test]
fn nothing_may_depend_on_the_member_packages() {
    for package in ["tests", "benches", "xtask"] {
        let mut members = lawful();
        member(&mut members, "geocached").edges.push((package.into(), false));
        assert!(violations(&members).iter().any(|found| found.contains(package)), "{package}");
    }
}

#[test]
fn a_member_without_a_row_and_a_row_without_a_member_are_told() {
    let mut members = lawful();
    members.retain(|member| member.name != "geo");
    members.push(Member { name: "common".into(), ..Member::default() });
    let found = violations(&members);
    assert!(found.iter().any(|found| found.contains("common has no row")), "{found:?}");
    assert!(found.iter().any(|found| found.contains("geo is in the table")), "{found:?}");
}

#[test]
fn a_driver_is_named_by_its_owners_alone_and_stays_optional() {
    for (name, optional, told) in [
        ("geocache", true, "geocache names lapin"),
        ("geocached", false, "geocached names lapin"),
        ("replication", false, "replication must name lapin as an optional dependency"),
    ] {
        let mut members = lawful();
        member(&mut members, name).edges.push(("lapin".into(), optional));
        let found = violations(&members);
        assert!(found.iter().any(|found| found.contains(told)), "{found:?}");
    }
    let mut members = lawful();
    let replication = member(&mut members, "replication");
    replication.edges.push(("lapin".into(), true));
    replication.default_features.push("rabbitmq".into());
    assert!(violations(&members).iter().any(|found| found.contains("no default feature")));
}

#[test]
fn a_library_may_not_name_anyhow() {
    let mut members = lawful();
    member(&mut members, "resilience").edges.push(("anyhow".into(), false));
    assert!(violations(&members).iter().any(|found| found.contains("resilience names anyhow")));
}

#[test]
fn a_source_that_names_the_driver_outside_its_folder_is_told_with_its_line() {
    let at = |path: &str, text: &str| (root().join(path), text.to_owned());
    let found = leaks(&[
        at("crates/replication/src/rabbitmq/mod.rs", "use lapin::Connection;"),
        at("tests/tests/bare_client/mod.rs", "use lapin::Connection;"),
        at(
            "crates/replication/src/driver.rs",
            "// A lapin::Channel would be wrong here.\n//! lapin is not named",
        ),
        at("crates/replication/src/wire/mod.rs", "fn a() {}\nfn b(c: &lapin::Channel) {}"),
        at("crates/geocache/src/lib.rs", "pub use lapin as amqp;"),
        at("crates/geocache/src/node.rs", "let my_lapin::x = \"lapin\"; other::lapin::y();"),
        at("crates/geocached/src/log.rs", "off(\"lapin::channels\");"),
    ]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("src/rabbitmq and tests/tests/bare_client alone"), "{found:?}");
    assert!(found[0].starts_with("crates/replication/src/wire/mod.rs:2"), "{found:?}");
    assert!(found[1].starts_with("crates/geocache/src/lib.rs:1"), "{found:?}");
}

#[test]
fn a_test_of_a_server_without_its_feature_is_told() {
    assert!(server_without_feature("x", "// Broker::start() is not used\nfn main() {}", &[]).is_empty());
    let broker = "let url = broker::shared_url().await;";
    let found = server_without_feature("x", broker, &[]);
    assert!(found.len() == 1 && found[0].contains("tests/tests/x.rs"), "{found:?}");
    assert!(server_without_feature("x", broker, &["broker".to_owned()]).is_empty());
    let memcached = "let server = MemcachedServer::start_with(&[]).await;";
    let found = server_without_feature("x", memcached, &["broker".to_owned()]);
    assert!(found.len() == 1 && found[0].contains("[\"memcached\"]"), "{found:?}");
}

#[test]
fn reach_follows_the_table() {
    assert!(reaches("geocached", "cache-core"), "through geocache");
    assert!(reaches("replication", "geo"));
    assert!(!reaches("geo", "replication"));
    assert!(!reaches("cache-core", "cache-core"));
}
