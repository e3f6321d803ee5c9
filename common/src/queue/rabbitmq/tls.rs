//! TLS to the broker: its authority, our certificate, and what a refusal means, with what to change.

#![expect(clippy::wildcard_enum_match_arm, reason = "errors of rustls, of which there will be more")]

use std::io;
use std::path::Path;

use lapin::tcp::{RustlsConnector, RustlsConnectorConfig};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError};

use crate::queue::{QueueError, Tls};

/// Who may vouch for the broker, and who we are. With a CA file, only what it holds is trusted.
pub(super) fn connector(tls: &Tls) -> Result<RustlsConnector, QueueError> {
    let authorities = match &tls.ca {
        Some(path) => RustlsConnectorConfig::default().with_parsable_certificates(certificates("cacertfile", path)?),
        None => RustlsConnectorConfig::new_with_platform_verifier(),
    };
    let Some((cert, key)) = tls.cert.as_ref().zip(tls.key.as_ref()) else {
        return authorities.connector_with_no_client_auth().map_err(|error| unusable(tls, &error));
    };
    let (chain, private) = (certificates("certfile", cert)?, private_key(key)?);
    authorities.connector_with_single_cert(chain, private).map_err(|error| match reason(&error) {
        Some(rustls::Error::InconsistentKeys(_)) => refused(format!(
            "keyfile {} is not the key of the certificate in certfile {}",
            key.display(),
            cert.display()
        )),
        _ => unusable(tls, &error),
    })
}

fn unusable(tls: &Tls, error: &io::Error) -> QueueError {
    let files: Vec<String> =
        [&tls.ca, &tls.cert, &tls.key].into_iter().flatten().map(|path| path.display().to_string()).collect();
    refused(format!("TLS cannot be set up with {}: {error}", files.join(", ")))
}

fn refused(text: String) -> QueueError {
    QueueError::Refused(text)
}

fn read(parameter: &str, path: &Path) -> Result<Vec<u8>, QueueError> {
    std::fs::read(path).map_err(|error| refused(format!("cannot read {parameter} {}: {error}", path.display())))
}

fn certificates(parameter: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, QueueError> {
    let text = read(parameter, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let shown = path.display();
    match found {
        Ok(found) if found.is_empty() => Err(refused(format!("{parameter} {shown} holds no certificate in PEM"))),
        Ok(found) => Ok(found),
        Err(error) => Err(refused(format!("{parameter} {shown} is not PEM: {error}"))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, QueueError> {
    let text = read("keyfile", path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let shown = path.display();
        let encrypted = text.windows(9).any(|part| part == b"ENCRYPTED");
        refused(match error {
            _ if encrypted => {
                format!("keyfile {shown} has a passphrase: write it without (openssl pkey -in OLD -out NEW)")
            }
            pem::Error::NoItemsFound => format!("keyfile {shown} holds no private key in PEM"),
            error => format!("keyfile {shown} is not PEM: {error}"),
        })
    })
}

fn reason(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What TLS itself did not accept, if that is what failed.
pub(super) fn failure(error: &io::Error, tls: &Tls, host: &str) -> Option<String> {
    let error = reason(error)?;
    Some(match error {
        rustls::Error::InvalidCertificate(why) => server_certificate(why, tls, host),
        rustls::Error::AlertReceived(alert) => client_certificate(*alert, tls),
        rustls::Error::InvalidMessage(_) => {
            "this port does not speak TLS: write amqp:// for it, or the port of TLS, usually 5671".to_owned()
        }
        other => format!("TLS failed: {other}"),
    })
}

fn server_certificate(why: &CertificateError, tls: &Tls, host: &str) -> String {
    match why {
        CertificateError::UnknownIssuer => match &tls.ca {
            Some(ca) => format!(
                "the broker's certificate was not issued by an authority in cacertfile {}: give the CA that issued it",
                ca.display()
            ),
            None => "the broker's certificate was not issued by an authority of this system: give its CA as \
                     ?cacertfile=FILE"
                .to_owned(),
        },
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the broker's certificate has expired: renew it on the broker".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the broker's certificate is not valid yet: look at the clocks of both machines".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the broker's certificate is not for {host}: use a name that it holds, or add {host} to its subjectAltName"
        ),
        other => format!("the broker's certificate is not accepted: {other}"),
    }
}

fn client_certificate(alert: AlertDescription, tls: &Tls) -> String {
    let ours = || tls.cert.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    match (alert, &tls.cert) {
        (
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::BadCertificate,
            None,
        ) => "the broker asks for a client certificate: give one as ?certfile=FILE&keyfile=FILE".to_owned(),
        (AlertDescription::UnknownCA, Some(_)) => {
            format!("the broker does not know the CA that issued certfile {}", ours())
        }
        (AlertDescription::CertificateExpired, Some(_)) => format!("certfile {} has expired: renew it", ours()),
        (_, Some(_)) => format!("the broker refused TLS with certfile {}: {alert:?}", ours()),
        (_, None) => format!("the broker refused TLS: {alert:?}"),
    }
}
