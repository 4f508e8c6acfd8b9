//! The example that needs a broker, as a reader of it would run it.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::time::Duration;

use tests::{
    broker::{URL_VARIABLE, shared_url},
    process::{Process, example},
};

/// Its own waits end earlier, each with what it waited for.
const BOUND: Duration = Duration::from_secs(240);

fn three_processes(environment: &[(&str, &str)]) -> Process {
    let program = example("geocache", "three_processes", "rabbitmq").unwrap();
    Process::spawn_with(&program, &[], environment).unwrap()
}

#[tokio::test]
async fn three_processes_share_a_cache_and_one_of_them_is_killed() {
    let run = three_processes(&[(URL_VARIABLE, &shared_url().unwrap())]);
    let code = run.exit_code(BOUND).await;
    assert_eq!(code, 0, "{}", run.log());
    assert!(run.log().contains("eu-central was killed; the others go on"), "{}", run.log());
}

#[tokio::test]
async fn without_a_broker_it_says_how_to_get_one() {
    let run = three_processes(&[]);
    let code = run.exit_code(BOUND).await;
    assert_eq!(code, 1, "{}", run.log());
    run.wait_for_line("cargo xtask broker up", BOUND).await;
}
