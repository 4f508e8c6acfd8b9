//! TLS with the broker: what it is configured with, checked at each attempt, and what a failed handshake means.
//!
//! rustls does the work, brought by the client library. Certificate authorities that it cannot parse it would leave out in
//! silence, and a key that does not belong to its certificate would only be refused by the broker; so both are checked
//! here, and the error names the setting and the file.
//!
//! With TLS 1.3 a client's handshake is over before the broker judged the client's certificate. A refusal then arrives as
//! an alert on the first read, while the AMQP handshake begins; it is told apart here all the same.

use std::{fmt, io};

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use rustls::{
    AlertDescription, CertificateError, Error as TlsError, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};

use super::{error::ConfigError, source::Pem};

/// What is wrong with a TLS handshake; its text says what to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsProblem {
    /// The broker's certificate was issued by nobody who is trusted.
    UnknownAuthority,
    /// The broker's certificate is for another host.
    HostName,
    /// The broker's certificate is not valid any more.
    Expired,
    /// The broker's certificate is not valid yet.
    NotYetValid,
    /// The broker's certificate cannot be accepted for another reason.
    ServerCertificate,
    /// The broker asks for a client certificate, and none is configured.
    ClientCertificateMissing,
    /// The broker refused the client certificate.
    ClientCertificateRefused,
    /// The other side speaks no TLS.
    NotTls,
    /// The two sides have no TLS version or cipher in common.
    NothingInCommon,
    /// Anything else.
    Other,
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownAuthority => {
                "its certificate was issued by an authority that is not trusted; give that authority's certificate as tls_ca"
            }
            Self::HostName => {
                "its certificate is for another host name; use in the URI a name that the certificate holds"
            }
            Self::Expired => "its certificate has expired; renew it at the broker, or set this machine's clock",
            Self::NotYetValid => "its certificate is not valid yet; set this machine's clock, or the broker's",
            Self::ServerCertificate => "its certificate cannot be accepted; renew it at the broker",
            Self::ClientCertificateMissing => {
                "it asks for a client certificate and none is configured; set tls_identity"
            }
            Self::ClientCertificateRefused => {
                "it refused the client certificate; see that tls_identity has not expired and was issued by an authority \
                 that the broker trusts (ssl_options.cacertfile)"
            }
            Self::NotTls => "it speaks no TLS at this port; use its TLS port (5671), or amqp:// in the URI",
            Self::NothingInCommon => "it has no TLS version or cipher in common with this side; allow TLS 1.2 or 1.3 there",
            Self::Other => "the handshake failed; see the broker's log",
        })
    }
}

/// What a failure of a connection with TLS speaks of, if it is of TLS at all.
pub(super) fn problem(error: &io::Error, has_identity: bool) -> Option<TlsProblem> {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) else {
        // Of the host's name, which has to be one that a certificate can hold.
        return (error.kind() == io::ErrorKind::InvalidData).then_some(TlsProblem::Other);
    };
    use AlertDescription as Alert;
    Some(match error {
        TlsError::InvalidCertificate(error) => match error {
            CertificateError::UnknownIssuer => TlsProblem::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsProblem::HostName
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsProblem::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                TlsProblem::NotYetValid
            }
            _ => TlsProblem::ServerCertificate,
        },
        TlsError::AlertReceived(alert) => match alert {
            Alert::CertificateRequired => TlsProblem::ClientCertificateMissing,
            // TLS 1.2 has no word of its own for a missing certificate.
            Alert::HandshakeFailure if !has_identity => TlsProblem::ClientCertificateMissing,
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied => TlsProblem::ClientCertificateRefused,
            Alert::ProtocolVersion | Alert::InsufficientSecurity | Alert::HandshakeFailure => {
                TlsProblem::NothingInCommon
            }
            // The broker's own trouble: it may be gone at the next attempt.
            Alert::InternalError | Alert::UserCanceled | Alert::CloseNotify => return None,
            _ => TlsProblem::Other,
        },
        TlsError::PeerIncompatible(_) => TlsProblem::NothingInCommon,
        TlsError::InvalidMessage(_) => TlsProblem::NotTls,
        _ => TlsProblem::Other,
    })
}

/// Certificate authorities and the client's identity as configured.
#[derive(Clone, Default)]
pub(super) struct Tls {
    pub(super) ca: Option<Pem>,
    /// Certificate chain and key.
    pub(super) identity: Option<(Pem, Pem)>,
}

impl Tls {
    /// What they are now, checked.
    pub(super) fn read(&self) -> Result<OwnedTLSConfig, ConfigError> {
        let ca = self.ca.as_ref().map(|pem| authorities(pem).map_err(|problem| config("tls_ca", problem)));
        let identity = self.identity.as_ref().map(|(certificates, key)| {
            identity(certificates, key).map_err(|problem| config("tls_identity", problem))
        });
        Ok(OwnedTLSConfig { cert_chain: ca.transpose()?, identity: identity.transpose()? })
    }
}

fn config(field: &'static str, problem: String) -> ConfigError {
    ConfigError { field, problem }
}

fn authorities(pem: &Pem) -> Result<String, String> {
    let (text, place) = pem.read()?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in certificates(&text, &place)?.into_iter().enumerate() {
        let added = store.add(certificate);
        added.map_err(|error| {
            format!("has in {place} at index {index} no certificate of an authority: {error}")
        })?;
    }
    String::from_utf8(text).map_err(|_| format!("has in {place} bytes that are no text"))
}

fn identity(chain: &Pem, key: &Pem) -> Result<OwnedIdentity, String> {
    let (chain, chain_place) = chain.read()?;
    let (key, key_place) = key.read()?;
    let certificates = certificates(&chain, &chain_place)?;
    // The parser's error is not shown, for it may repeat what it could not parse.
    let parsed = PrivateKeyDer::from_pem_slice(&key);
    let parsed =
        parsed.map_err(|_| format!("has in {key_place} no private key in PEM (PKCS#8, PKCS#1 or SEC1)"))?;
    CertifiedKey::from_der(certificates, parsed, &rustls::crypto::ring::default_provider()).map_err(
        |error| {
            let both = format!("the certificate in {chain_place} and the key in {key_place}");
            match error {
                TlsError::InconsistentKeys(_) => format!("has {both}, which do not belong together"),
                error => format!("has {both}, which cannot be used: {error}"),
            }
        },
    )?;
    Ok(OwnedIdentity::PKCS8 { pem: chain, key })
}

fn certificates(text: &[u8], place: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match parsed {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("has in {place} no certificate in PEM")),
        Err(error) => Err(format!("has in {place} a certificate that is no PEM: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn issued() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["broker".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn a_certificate_and_its_key_are_taken_as_text_or_from_files() {
        let (certificate, key) = issued();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
            folder.path().join(name)
        };
        let files = (Pem::from(at("a.pem", &certificate)), Pem::file(at("a.key", &key)));
        for identity in [(certificate.as_str().into(), key.into()), files] {
            let tls = Tls { ca: Some(certificate.as_str().into()), identity: Some(identity) };
            let read = tls.read().unwrap();
            assert_eq!(read.cert_chain.as_deref(), Some(certificate.as_str()));
            assert!(read.identity.is_some());
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_by_setting_and_file() {
        let ((certificate, key), (_, other_key)) = (issued(), issued());
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.pem");
        std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let ca = |ca: Pem| Tls { ca: Some(ca), identity: None };
        let own = |chain: &str, key: &str| Tls { ca: None, identity: Some((chain.into(), key.into())) };
        for (tls, field, word) in [
            (ca(Pem::file("/nowhere/ca.pem")), "tls_ca", "/nowhere/ca.pem"),
            (ca(broken.as_path().into()), "tls_ca", "broken.pem"),
            (ca("".into()), "tls_ca", "no certificate"),
            (ca(key.as_str().into()), "tls_ca", "no certificate"),
            (own(&certificate, "SECRET"), "tls_identity", "no private key"),
            (own(&key, &key), "tls_identity", "no certificate"),
            (own(&certificate, &other_key), "tls_identity", "do not belong together"),
        ] {
            let Err(error) = tls.read() else { panic!("{field} with {word} was taken") };
            let shown = error.to_string();
            assert_eq!(error.field, field, "{shown}");
            assert!(shown.contains(word) && !shown.contains("SECRET"), "{shown}");
        }
    }

    #[test]
    fn each_refusal_says_what_to_mend() {
        let of = |error| problem(&io::Error::new(io::ErrorKind::InvalidData, error), true);
        let alert = |alert| of(TlsError::AlertReceived(alert));
        let certificate = |error| of(TlsError::InvalidCertificate(error));
        assert_eq!(certificate(CertificateError::UnknownIssuer), Some(TlsProblem::UnknownAuthority));
        assert_eq!(certificate(CertificateError::NotValidForName), Some(TlsProblem::HostName));
        assert_eq!(certificate(CertificateError::Expired), Some(TlsProblem::Expired));
        assert_eq!(certificate(CertificateError::NotValidYet), Some(TlsProblem::NotYetValid));
        assert_eq!(alert(AlertDescription::CertificateExpired), Some(TlsProblem::ClientCertificateRefused));
        assert_eq!(alert(AlertDescription::CertificateRequired), Some(TlsProblem::ClientCertificateMissing));
        assert_eq!(alert(AlertDescription::InternalError), None, "the broker may recover");
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(problem(&reset, true), None, "a broken link is not TLS's fault");
        let missing = TlsError::AlertReceived(AlertDescription::HandshakeFailure);
        let missing = problem(&io::Error::new(io::ErrorKind::InvalidData, missing), false);
        assert_eq!(missing, Some(TlsProblem::ClientCertificateMissing), "as TLS 1.2 says it");
    }
}
