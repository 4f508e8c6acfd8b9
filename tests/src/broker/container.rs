//! A broker in a container, where no RabbitMQ is installed but an engine answers.
//!
//! The container is created rather than run, so that its configuration is copied in before the first start (which also
//! works with an engine on another file system), and it is kept when it ends, so that a restart finds its data.
//! Its processes are the engine's, often of another machine, so whether it is there is a question to the engine.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};

use super::{
    Options,
    ports::Ports,
    run::{self, Ending},
};

/// Pinned: tests must not change with what a tag points to today.
const IMAGE: &str = "docker.io/library/rabbitmq:3.13.7";
const PULL_BOUND: Duration = Duration::from_secs(300);
const ORDER_BOUND: Duration = Duration::from_secs(60);
/// The file in the broker's folder that names its engine and container, for whoever has to end it.
const NAME_FILE: &str = "container";

/// One private broker in a container.
#[derive(Debug)]
pub(super) struct Container {
    engine: String,
    name: String,
    ports: Ports,
}

impl Container {
    /// Creates it; nothing runs yet.
    pub(super) fn new(
        engine: &str,
        folder: &Path,
        ports: Ports,
        options: &Options,
        ending: &Ending,
    ) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let container = Self { engine: engine.to_owned(), name: crate::unique_name("geocache-test"), ports };
        eprintln!("starting the broker in a container of {engine}, from the image {IMAGE}");
        // Named on disk first, so that a container is never there without its name.
        fs::write(folder.join(NAME_FILE), format!("{engine} {}", container.name))?;
        let publish = format!("127.0.0.1:{}:5672", container.ports.amqp());
        container.order(
            &["create", "--name", &container.name, "--hostname", "rabbit", "--publish", &publish, IMAGE],
            PULL_BOUND,
            ending,
        )?;
        let mut config = String::from(
            "loopback_users = none\ndisk_free_limit.absolute = 50MB\nlog.console.level = error\n",
        );
        for line in &options.config {
            config.push_str(line);
            config.push('\n');
        }
        let files = [
            ("rabbitmq.conf", config, "/etc/rabbitmq/conf.d/20-geocache-test.conf"),
            ("enabled_plugins", format!("[{}].", options.plugins.join(",")), "/etc/rabbitmq/enabled_plugins"),
        ];
        for (name, text, place) in files {
            let file = folder.join(name);
            fs::write(&file, text)?;
            let file = file.to_str().context("the target folder's path is not UTF-8")?.to_owned();
            container.order(&["cp", &file, &format!("{}:{place}", container.name)], ORDER_BOUND, ending)?;
        }
        Ok(container)
    }

    pub(super) fn port(&self) -> u16 {
        self.ports.amqp()
    }

    pub(super) fn start(&self, ending: &Ending) -> Result<()> {
        self.order(&["start", &self.name], ORDER_BOUND, ending).map(drop)
    }

    /// What it printed, if it ended by itself.
    pub(super) fn ended(&self, ending: &Ending) -> Result<Option<String>> {
        let running =
            self.order(&["inspect", "--format", "{{.State.Running}}", &self.name], ORDER_BOUND, ending)?;
        Ok(if running.trim() == "true" { None } else { Some(self.log(ending)) })
    }

    pub(super) fn log(&self, ending: &Ending) -> String {
        self.order(&["logs", "--tail", "40", &self.name], ORDER_BOUND, ending).unwrap_or_default()
    }

    pub(super) fn kill(&self, ending: &Ending) -> Result<()> {
        self.order(&["kill", "--signal", "KILL", &self.name], ORDER_BOUND, ending).map(drop)
    }

    pub(super) fn stop(&self, ending: &Ending) -> Result<()> {
        self.order(&["stop", "-t", "30", &self.name], ORDER_BOUND, ending).map(drop)
    }

    /// `pause` or `unpause`.
    pub(super) fn freeze(&self, order: &str, ending: &Ending) -> Result<()> {
        self.order(&[order, &self.name], ORDER_BOUND, ending).map(drop)
    }

    pub(super) fn ctl(&self, arguments: &[String], ending: &Ending) -> Result<String> {
        let mut words = vec!["exec", &self.name, "rabbitmqctl", "--quiet"];
        words.extend(arguments.iter().map(String::as_str));
        self.order(&words, ORDER_BOUND, ending)
    }

    fn order(&self, words: &[&str], bound: Duration, ending: &Ending) -> Result<String> {
        let mut command = Command::new(&self.engine);
        command.args(words);
        run::captured(command, bound, ending)
    }
}

/// Removes the container that `folder` names, if it names one.
pub(super) fn remove(folder: &Path) -> Result<()> {
    Named::in_folder(folder)
        .map_or(Ok(()), |named| named.ask(&["rm", "--force", "--volumes", &named.name]).map(drop))
}

/// A container as a broker's folder names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) engine: String,
    pub(super) name: String,
}

impl Named {
    /// The one that `folder` names, if it names one.
    pub(super) fn in_folder(folder: &Path) -> Option<Self> {
        let text = fs::read_to_string(folder.join(NAME_FILE)).ok()?;
        let (engine, name) = text.split_once(' ')?;
        Some(Self { engine: engine.to_owned(), name: name.to_owned() })
    }

    /// Whether the engine has it, running or not.
    pub(super) fn exists(&self) -> Result<bool> {
        self.is_listed(&["ps", "--all", "--format", "{{.Names}}"])
    }

    /// Whether it runs, frozen or not.
    pub(super) fn runs(&self) -> Result<bool> {
        self.is_listed(&["ps", "--format", "{{.Names}}"])
    }

    fn is_listed(&self, words: &[&str]) -> Result<bool> {
        Ok(self.ask(words)?.lines().any(|line| line.trim() == self.name))
    }

    fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.engine);
        command.args(words);
        run::captured(command, ORDER_BOUND, &Ending::new(false))
    }
}
