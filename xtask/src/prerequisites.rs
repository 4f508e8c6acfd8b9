//! What the steps of `ci` need of the machine and cannot install by themselves, told all at once.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{
    child::{captured, cargo, on_build_machine, run},
    conformance,
};

/// Looks for everything, whatever was missing before.
///
/// # Errors
/// All that is missing, each with what to do.
pub(crate) fn check() -> Result<()> {
    let mut compiler = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    compiler.arg("--version");
    judge([
        ("Cargo.lock", lock_file()),
        (
            "rustfmt",
            version(cargo("fmt --version"), "`rustup component add rustfmt`, or your system's package"),
        ),
        (
            "clippy",
            version(cargo("clippy --version"), "`rustup component add clippy`, or your system's package"),
        ),
        (
            "C compiler",
            version(
                compiler,
                "Debian and Ubuntu: apt-get install gcc libc6-dev; macOS: xcode-select --install; or name one in CC",
            ),
        ),
        ("memccapable", conformance::suite_can_be_had().map(str::to_owned)),
        ("broker", harness("check")),
        ("memcached", harness("check-memcached")),
    ])
}

fn judge(looks: impl IntoIterator<Item = (&'static str, Result<String>)>) -> Result<()> {
    let mut missing = Vec::new();
    for (name, found) in looks {
        match found {
            Ok(found) => println!("{name}: {found}"),
            Err(error) => missing.push(format!("{name}: {error:#}")),
        }
    }
    if !missing.is_empty() {
        bail!("this machine lacks what a later step needs:\n- {}", missing.join("\n- "));
    }
    Ok(())
}

/// What the program says that it is.
fn version(mut command: Command, remedy: &str) -> Result<String> {
    let said = captured(&mut command).with_context(|| format!("install it ({remedy})"))?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

/// Elsewhere than on a build machine cargo brings it up to date by itself.
fn lock_file() -> Result<String> {
    if !on_build_machine() {
        return Ok("may change, for CI is not set".to_owned());
    }
    captured(&mut cargo("metadata --quiet --format-version 1"))
        .context("it does not fit the manifests; run `cargo update --workspace` and commit it")?;
    Ok("fits the manifests".to_owned())
}

/// Where the integration tests would get the servers that they need; the harness knows.
fn harness(look: &str) -> Result<String> {
    run(&mut cargo("build --quiet --package tests --bin broker"))?;
    let said = captured(&mut cargo(&format!("run --quiet --package tests --bin broker -- {look}")))?;
    Ok(said.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    /// What was missing used to be told one a run, by the last steps.
    #[test]
    fn all_that_is_missing_is_told_at_once() {
        judge([("one", Ok("there".to_owned()))]).unwrap();
        let error = judge([
            ("one", Err(anyhow!("get one"))),
            ("two", Ok("there".to_owned())),
            ("three", Err(anyhow!("get three"))),
        ]);
        let error = error.unwrap_err().to_string();
        assert!(error.ends_with("\n- one: get one\n- three: get three"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_with_what_to_do() {
        let error = version(Command::new("/no/such/compiler"), "get one").unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("get one") && error.contains("could not start `compiler`"), "{error}");
    }
}
