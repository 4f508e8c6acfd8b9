//! The harness's own promises about programs: what it starts ends with the test, and can be signalled and read.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

use std::{path::Path, time::Duration};

use tests::{
    process::{Process, free_ports},
    wait_until,
};

const BOUND: Duration = Duration::from_secs(20);

fn sh(script: &str) -> Process {
    Process::spawn(Path::new("/bin/sh"), &["-c", script]).unwrap()
}

fn runs(pid: u32) -> bool {
    let kill = format!("kill -0 {pid} 2>/dev/null");
    std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success()
}

#[tokio::test]
async fn both_streams_are_kept_and_waited_for() {
    let process = sh("echo one; echo two >&2; exec sleep 600");
    assert_eq!(process.wait_for_line("one", BOUND).await, "one");
    assert_eq!(process.wait_for_line("tw", BOUND).await, "two");
    assert!(process.log().contains("one\n"));
}

#[tokio::test]
#[should_panic(expected = "no line with \"never\" within 50ms; it printed:\nsomething")]
async fn a_line_that_does_not_come_panics_with_what_was_printed() {
    let process = sh("echo something; exec sleep 600");
    process.wait_for_line("something", BOUND).await;
    process.wait_for_line("never", Duration::from_millis(50)).await;
}

#[tokio::test]
#[should_panic(expected = "before it listened")]
async fn a_program_that_ends_before_it_listens_panics_at_once() {
    let addr = ([127, 0, 0, 1], free_ports(1)).into();
    sh("echo the port is taken >&2; exit 3").wait_for_port(addr, Duration::from_secs(600)).await;
}

#[tokio::test]
async fn a_dropped_program_is_killed_even_if_it_ignores_signals() {
    let process = sh("trap '' TERM INT HUP; echo ready; while :; do sleep 600; done");
    process.wait_for_line("ready", BOUND).await;
    let pid = process.pid();
    assert!(runs(pid));
    drop(process);
    wait_until("it is gone", BOUND, async || !runs(pid)).await;
}

#[tokio::test]
async fn the_exit_code_is_the_programs_own_or_that_of_its_signal() {
    assert_eq!(sh("exit 7").exit_code(BOUND).await, 7);
    let process = sh("echo ready; exec sleep 600");
    process.wait_for_line("ready", BOUND).await;
    process.terminate().unwrap();
    assert_eq!(process.exit_code(BOUND).await, 128 + 15);
    assert!(process.kill_9().unwrap_err().to_string().contains("ended before"));
}

#[tokio::test]
async fn a_frozen_program_goes_on_when_thawed() {
    let process = sh("trap 'echo heard' USR1; echo ready; while :; do sleep 0.01; done");
    process.wait_for_line("ready", BOUND).await;
    process.freeze().unwrap();
    let pid = process.pid();
    wait_until("it is stopped", BOUND, async || {
        let out = std::process::Command::new("sh")
            .args(["-c", &format!("cat /proc/{pid}/stat 2>/dev/null || ps -o stat= -p {pid}")])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).contains('T')
    })
    .await;
    assert!(
        std::process::Command::new("sh")
            .args(["-c", &format!("kill -USR1 {pid}")])
            .status()
            .unwrap()
            .success()
    );
    assert!(!process.log().contains("heard"));
    process.thaw().unwrap();
    process.wait_for_line("heard", BOUND).await;
}

/// A daemon under test joined, and emptied, the cluster that a developer's exported settings named.
#[test]
fn the_callers_settings_do_not_reach_a_program_unless_kept_by_name() {
    let printed = |keep: &[&str]| {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_broker"))
            .arg("mind")
            .args(keep)
            .args(["--", "/bin/sh", "-c", "env"])
            .envs([("GEOCACHE_REGION", "us-east"), ("GEOCACHE_AMQP", "amqp://live"), ("OTHER", "stays")])
            // An end of the input would end the program before it printed.
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let mut child = out.unwrap();
        let held = child.stdin.take();
        let out = child.wait_with_output().unwrap();
        drop(held);
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap()
    };
    let without = printed(&[]);
    assert!(without.contains("OTHER=stays") && !without.contains("GEOCACHE_"), "{without}");
    let with = printed(&["--keep", "GEOCACHE_REGION"]);
    assert!(with.contains("GEOCACHE_REGION=us-east") && !with.contains("GEOCACHE_AMQP"), "{with}");
}

#[tokio::test]
async fn a_setting_that_the_test_passes_reaches_the_program() {
    let arguments = ["-c", "echo region $GEOCACHE_REGION; exec sleep 600"];
    let process =
        Process::spawn_with(Path::new("/bin/sh"), &arguments, &[("GEOCACHE_REGION", "us-east")]).unwrap();
    assert_eq!(process.wait_for_line("region", BOUND).await, "region us-east");
}

#[test]
fn a_program_that_is_not_there_is_an_error() {
    let error = Process::spawn(Path::new("/no/such/program"), &[]).unwrap_err();
    assert!(error.to_string().contains("/no/such/program"), "{error}");
}
