//! The harness's own promises about a real memcached: it answers, dies, returns and freezes when told.

use std::time::Duration;

use tests::memcached_server::MemcachedServer;

#[tokio::test]
async fn a_killed_memcached_comes_back_on_its_port_and_empty() {
    let mut server = MemcachedServer::start().await.unwrap();
    let (addr, pid) = (server.addr(), server.pid());
    server.client().await.unwrap().set("k", b"v", 0).await.unwrap();
    assert_eq!(server.client().await.unwrap().get("k").await.unwrap().as_deref(), Some(&b"v"[..]));

    server.kill_9().await.unwrap();
    assert!(server.client().await.is_err(), "nobody listens any more");
    server.restart().await.unwrap();
    assert_eq!(server.addr(), addr);
    assert_ne!(server.pid(), pid);
    assert_eq!(server.client().await.unwrap().get("k").await.unwrap(), None);
}

#[tokio::test]
async fn a_frozen_memcached_keeps_its_connections_and_answers_when_thawed() {
    let server = MemcachedServer::start().await.unwrap();
    let mut client = server.client().await.unwrap();
    server.freeze().unwrap();
    let silent = tokio::time::timeout(Duration::from_millis(100), client.command("version")).await;
    assert!(silent.is_err(), "a frozen server answered: {silent:?}");
    server.thaw().unwrap();
    assert!(client.line().await.unwrap().starts_with("VERSION "));
}
