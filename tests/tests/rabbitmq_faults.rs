//! One short row of the fault matrix, so that its machinery is tried with every change; `cargo xtask test-integration
//! --faults` runs all of them.

/// The row has a broker of its own, as all of them have.
mod harms_the_broker {
    use std::time::Duration;

    use tests::fleet::{Times, row};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn links_that_are_cut_for_five_seconds_lose_nothing() {
        let cut = row::all().into_iter().find(|row| row.name == "cut").unwrap();
        let seconds = Duration::from_secs;
        let times = Times { warm: seconds(1), before: seconds(3), after: seconds(1), ..Times::default() };
        let folder = tempfile::tempdir().unwrap();
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let outcome =
            row::play(&cut.lasting(seconds(5)), "fast", seed, times, folder.path().to_owned()).await;
        println!("{outcome}");
        // How fast a node reads and writes is no matter of a test: the machine may be busy with others.
        assert!(outcome.is_green_but_for(&["slow reads", "unsteady writes"]), "{outcome}");
    }
}
