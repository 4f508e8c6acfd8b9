//! TLS with the broker, both sides' certificates included; credentials that are read anew; virtual hosts.
//!
//! Certificates are made at run time, by an authority of the test's own. All tests share one private broker, which listens
//! for TLS too, and keep to users and virtual hosts of their own.

#![expect(clippy::unwrap_used, reason = "a test that unwraps fails, as it should")]

/// They have a broker of their own, for its configuration.
mod harms_the_broker {
    use std::{
        io::Write,
        path::{Path, PathBuf},
        sync::{Arc, Mutex},
        time::Duration,
    };

    use geocache::rabbitmq::{Config, ConnectError, Credentials, Pem, RabbitMq, TlsProblem};
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
        date_time_ymd,
    };
    use replication::{Health, NodeId, Transport};
    use tests::{
        broker::{Broker, Options},
        process::free_ports,
        unique_name, wait_until,
    };
    use tokio::sync::OnceCell;

    const BOUND: Duration = Duration::from_secs(90);
    const PASSWORD: &str = "hunter2-s3cr3t";

    /// An authority and what it issues.
    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    impl Authority {
        fn new(name: &str) -> Self {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let pem = params.self_signed(&key).unwrap().pem();
            Self { issuer: Issuer::new(params, key), pem }
        }

        /// A certificate and its key; `expired` years ago.
        fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose, expired: bool) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![purpose];
            if expired {
                (params.not_before, params.not_after) =
                    (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
            }
            let certificate = params.signed_by(&key, &self.issuer).unwrap();
            (certificate.pem(), key.serialize_pem())
        }

        fn client(&self, name: &str) -> (String, String) {
            self.issue(name, ExtendedKeyUsagePurpose::ClientAuth, false)
        }
    }

    /// A broker with a TLS listener that asks each client for a certificate.
    struct TlsBroker {
        broker: Broker,
        authority: Authority,
        port: u16,
        _folder: tempfile::TempDir,
    }

    impl TlsBroker {
        async fn start() -> Self {
            let authority = Authority::new("the test's authority");
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str, text: &str| {
                let path = folder.path().join(name);
                std::fs::write(&path, text).unwrap();
                path.to_str().unwrap().to_owned()
            };
            let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth, false);
            let port = free_ports(1);
            let options = Options::default()
                .plugin("rabbitmq_auth_mechanism_ssl")
                .config(&format!("listeners.ssl.1 = 127.0.0.1:{port}"))
                .config(&format!("ssl_options.cacertfile = {}", at("ca.pem", &authority.pem)))
                .config(&format!("ssl_options.certfile = {}", at("broker.pem", &certificate)))
                .config(&format!("ssl_options.keyfile = {}", at("broker.key", &key)))
                .config("ssl_options.verify = verify_peer")
                .config("ssl_options.fail_if_no_peer_cert = true")
                .config("ssl_cert_login_from = common_name")
                .config("auth_mechanisms.1 = PLAIN")
                .config("auth_mechanisms.2 = AMQPLAIN")
                .config("auth_mechanisms.3 = EXTERNAL");
            let broker = Broker::start(options).await.unwrap();
            Self { broker, authority, port, _folder: folder }
        }

        /// The TLS URI, with the name that the certificate holds.
        fn uri(&self, host: &str) -> String {
            format!("amqps://guest:guest@{host}:{}/%2f", self.port)
        }

        /// A configuration with everything right.
        fn config(&self, name: &str) -> Config {
            let (certificate, key) = self.authority.client(name);
            config(&self.uri("localhost")).tls_ca(self.authority.pem.as_str()).tls_identity(certificate, key)
        }

        /// What the broker's own shell makes of an expression.
        async fn eval(&self, expression: &str) -> String {
            self.broker.ctl(&["eval", expression]).await.unwrap()
        }
    }

    /// Shared by the tests of this process; it ends with it.
    async fn broker() -> &'static TlsBroker {
        static BROKER: OnceCell<TlsBroker> = OnceCell::const_new();
        BROKER.get_or_init(TlsBroker::start).await
    }

    fn config(uri: &str) -> Config {
        let node = NodeId::new("us-east".parse().unwrap(), "n").unwrap();
        Config::new(node, vec![uri.to_owned()]).cache(unique_name("tls"))
    }

    async fn connects(config: Config) {
        let transport = RabbitMq::connect(config).await.unwrap();
        assert_eq!(*transport.health().borrow(), Health::Connected);
        transport.close().await.unwrap();
    }

    /// The problem that ends the attempt, which has to be one that waiting does not mend.
    async fn refused(config: Config, problem: TlsProblem) {
        let error = RabbitMq::connect(config).await.unwrap_err();
        let ConnectError::Tls { problem: told, .. } = &error else { panic!("not of TLS: {error}") };
        assert_eq!(*told, problem, "{error}");
        assert!(!error.to_string().contains("guest:guest"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn both_sides_prove_who_they_are() {
        let broker = broker().await;
        connects(broker.config("any-name")).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_wrong_certificate_is_told_apart() {
        let broker = broker().await;
        let stranger = Authority::new("a stranger");
        let (certificate, key) = broker.authority.client("node");
        let identity =
            |config: Config, (certificate, key): (String, String)| config.tls_identity(certificate, key);
        let right = || broker.config("node");

        refused(right().tls_ca(stranger.pem.as_str()), TlsProblem::UnknownAuthority).await;
        let nobody = identity(config(&broker.uri("localhost")), (certificate.clone(), key.clone()));
        refused(nobody, TlsProblem::UnknownAuthority).await;
        let by_address = config(&broker.uri("127.0.0.1")).tls_ca(broker.authority.pem.as_str());
        refused(identity(by_address, (certificate, key)), TlsProblem::HostName).await;

        let nameless = config(&broker.uri("localhost")).tls_ca(broker.authority.pem.as_str());
        refused(nameless, TlsProblem::ClientCertificateMissing).await;
        let strange = identity(right(), stranger.client("node"));
        refused(strange, TlsProblem::ClientCertificateRefused).await;
        let old = broker.authority.issue("node", ExtendedKeyUsagePurpose::ClientAuth, true);
        refused(identity(right(), old), TlsProblem::ClientCertificateRefused).await;

        let plain_port = broker.broker.addr().port();
        let plain = config(&format!("amqps://guest:guest@localhost:{plain_port}/%2f"));
        refused(plain.connect_wait(Duration::ZERO), TlsProblem::NotTls).await;
    }

    /// The broker's certificate, not the client's: a listener of its own that has an expired one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_expired_certificate_of_the_broker_is_told() {
        let authority = Authority::new("the other authority");
        let (certificate, key) = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth, true);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name).to_str().unwrap().to_owned()
        };
        let port = free_ports(1);
        let options = Options::default()
            .config(&format!("listeners.ssl.1 = 127.0.0.1:{port}"))
            .config(&format!("ssl_options.certfile = {}", at("broker.pem", &certificate)))
            .config(&format!("ssl_options.keyfile = {}", at("broker.key", &key)));
        let _broker = Broker::start(options).await.unwrap();
        let uri = format!("amqps://guest:guest@localhost:{port}/%2f");
        refused(config(&uri).tls_ca(authority.pem.as_str()), TlsProblem::Expired).await;
    }

    /// A cache whose certificate ran out gets another one, by the files alone.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_renewed_certificate_is_taken_without_a_restart() {
        let broker = broker().await;
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let write = |(certificate, key): (String, String)| {
            std::fs::write(file("node.pem"), certificate).unwrap();
            std::fs::write(file("node.key"), key).unwrap();
        };
        std::fs::write(file("ca.pem"), &broker.authority.pem).unwrap();
        write(broker.authority.issue("node", ExtendedKeyUsagePurpose::ClientAuth, true));
        let config = config(&broker.uri("localhost"))
            .tls_ca(Pem::file(file("ca.pem")))
            .tls_identity(Pem::file(file("node.pem")), Pem::file(file("node.key")))
            .retry(Duration::from_millis(50), Duration::from_millis(200));
        refused(config.clone(), TlsProblem::ClientCertificateRefused).await;

        let transport = RabbitMq::dial(config.clone()).unwrap();
        says(&transport, "tls_identity").await;
        write(broker.authority.client("node"));
        is_connected(&transport).await;
        transport.close().await.unwrap();

        std::fs::remove_file(file("node.key")).unwrap();
        let error = RabbitMq::connect(config).await.unwrap_err();
        assert!(matches!(error, ConnectError::Config(_)), "{error}");
        let shown = error.to_string();
        assert!(shown.contains("tls_identity") && shown.contains("node.key"), "{shown}");
    }

    /// The certificate's common name is the user; there is no password at all.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_certificate_alone_can_be_the_credentials() {
        let broker = broker().await;
        let user = unique_name("cert");
        let external = |name: &str| {
            let (certificate, key) = broker.authority.client(name);
            config(&format!("amqps://localhost:{}/%2f?auth_mechanism=external", broker.port))
                .tls_ca(broker.authority.pem.as_str())
                .tls_identity(certificate, key)
        };
        let error = RabbitMq::connect(external(&user)).await.unwrap_err();
        assert!(matches!(error, ConnectError::Credentials { .. }), "{error}");
        broker
            .eval(&format!(
                "rabbit_auth_backend_internal:add_user(<<\"{user}\">>, <<\"unused-{user}\">>, <<\"test\">>), \
                 rabbit_auth_backend_internal:set_permissions(<<\"{user}\">>, <<\"/\">>, <<\".*\">>, <<\".*\">>, \
                 <<\".*\">>, <<\"test\">>)."
            ))
            .await;
        connects(external(&user)).await;
    }

    async fn says(transport: &RabbitMq, word: &str) {
        let health = transport.health();
        wait_until(&format!("health says {word:?}"), BOUND, async || {
            health.borrow().reason().is_some_and(|reason| reason.contains(word))
        })
        .await;
    }

    async fn is_connected(transport: &RabbitMq) {
        let health = transport.health();
        wait_until("it is connected", BOUND, async || *health.borrow() == Health::Connected).await;
    }

    fn password_file(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("password");
        std::fs::write(&path, text).unwrap();
        path
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_rotated_password_is_taken_from_its_file_and_refused_until_it_is_there() {
        let broker = broker().await;
        let (user, folder) = (unique_name("rotated"), tempfile::tempdir().unwrap());
        let set = |password: &str| {
            format!(
                "rabbit_auth_backend_internal:put_user(#{{name => <<\"{user}\">>, password => <<\"{password}\">>, \
                 tags => <<\"\">>}}, <<\"test\">>), \
                 rabbit_auth_backend_internal:set_permissions(<<\"{user}\">>, <<\"/\">>, <<\".*\">>, <<\".*\">>, \
                 <<\".*\">>, <<\"test\">>)."
            )
        };
        broker.eval(&set("first")).await;
        let uri = format!("amqp://{user}@{}/%2f", broker.broker.addr());
        let config = config(&uri)
            .credentials(Credentials::file(password_file(folder.path(), "first\n")))
            .retry(Duration::from_millis(50), Duration::from_millis(200));
        let transport = RabbitMq::connect(config).await.unwrap();

        broker.eval(&set("second")).await;
        broker.broker.ctl(&["close_all_user_connections", &user, "rotation"]).await.unwrap();
        says(&transport, "refused the credentials").await;
        password_file(folder.path(), "second\n");
        is_connected(&transport).await;
        assert!(transport.stats().reconnects >= 2, "both connections: {:?}", transport.stats());
        transport.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn special_characters_of_user_password_and_virtual_host_work() {
        let broker = broker().await;
        let (user, host) = (unique_name("a:b@c"), unique_name("team/prod %2f"));
        let password = "p@:/%?# ü";
        broker.broker.ctl(&["add_vhost", &host]).await.unwrap();
        broker.broker.ctl(&["add_user", &user, password]).await.unwrap();
        broker.broker.ctl(&["set_permissions", "-p", &host, &user, ".*", ".*", ".*"]).await.unwrap();
        let encoded = |text: &str| -> String {
            text.bytes()
                .map(|b| {
                    if b.is_ascii_alphanumeric() || b == b'-' {
                        char::from(b).to_string()
                    } else {
                        format!("%{b:02X}")
                    }
                })
                .collect()
        };
        let addr = broker.broker.addr();
        let (user_encoded, host_encoded) = (encoded(&user), encoded(&host));
        connects(config(&format!("amqp://{user_encoded}:{}@{addr}/{host_encoded}", encoded(password)))).await;
        let apart = config(&format!("amqp://{addr}/{host_encoded}"));
        connects(apart.credentials(Credentials::new(user, password))).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_virtual_host_that_is_not_there_is_named() {
        let broker = broker().await;
        let addr = broker.broker.addr();
        let error = RabbitMq::connect(config(&format!("amqp://{addr}/no%2fsuch"))).await.unwrap_err();
        let ConnectError::VirtualHost { virtual_host, .. } = &error else { panic!("{error}") };
        assert_eq!(virtual_host, "no/such");
    }

    /// Everything that is logged, by whichever thread.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// The client library's own logs included, at the finest level, from its own threads. The subscriber is the process's, so
    /// other tests of this file log here too, which harms nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_password_is_shown_anywhere() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::set_global_default(subscriber).unwrap();
        let broker = broker().await;
        let user = unique_name("secretive");
        broker.broker.ctl(&["add_user", &user, PASSWORD]).await.unwrap();
        broker.broker.ctl(&["set_permissions", &user, ".*", ".*", ".*"]).await.unwrap();
        let addr = broker.broker.addr();
        let right = config(&format!("amqp://{user}:{PASSWORD}@{addr}/%2f"));
        let transport = RabbitMq::connect(right.clone()).await.unwrap();
        let shown = format!("{right:?} {transport:?} {:?}", *transport.health().borrow());
        transport.close().await.unwrap();

        let apart = Credentials::new("nobody", PASSWORD);
        let wrong = config(&format!("amqp://{addr}")).credentials(apart);
        let error = RabbitMq::connect(wrong.clone()).await.unwrap_err();
        let dialled = RabbitMq::dial(wrong).unwrap();
        says(&dialled, "refused the credentials").await;
        let health = dialled.health().borrow().clone();
        dialled.close().await.unwrap();
        let nowhere = config(&format!("amqp://{user}:{PASSWORD}@127.0.0.1:1")).connect_wait(Duration::ZERO);
        let unreachable = RabbitMq::connect(nowhere).await.unwrap_err();

        let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(logged.contains("TRACE lapin") || logged.contains("DEBUG lapin"), "the library was heard");
        let all = format!("{shown} {error} {error:?} {health:?} {unreachable} {unreachable:?} {logged}");
        assert!(!all.contains(PASSWORD), "the password is shown");
        // As a list of bytes, too.
        let bytes: Vec<String> = PASSWORD.bytes().map(|byte| byte.to_string()).collect();
        assert!(!all.contains(&bytes.join(", ")), "the password is shown byte by byte");
    }
}
