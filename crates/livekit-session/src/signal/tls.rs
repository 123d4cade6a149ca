// SPDX-License-Identifier: MIT OR Apache-2.0

//! TLS for signalling: the system's certificate authorities, plus a file of the user's.

use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::error::Error;

/// The certificates of a PEM file.
///
/// # Errors
/// [`Error::TlsCaFile`] if the file can't be read or holds no certificate.
pub(crate) fn load_ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |reason: String| Error::TlsCaFile { path: path.to_owned(), reason };
    let certs = CertificateDer::pem_file_iter(path)
        .map_err(|e| fail(e.to_string()))?
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| fail(e.to_string()))?;
    if certs.is_empty() {
        return Err(fail("it contains no PEM certificate (-----BEGIN CERTIFICATE-----)".into()));
    }
    Ok(certs)
}

/// A client configuration that trusts the system's roots and those in `ca_file`. The crypto provider is
/// named here, because installing a process-wide default is the application's business.
pub(crate) fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Some(path) = ca_file {
        for cert in load_ca_file(path)? {
            roots.add(cert).map_err(|e| Error::TlsCaFile { path: path.to_owned(), reason: e.to_string() })?;
        }
    }
    if roots.is_empty() {
        return Err(Error::Certificate(
            "no certificate authority is installed: install the package 'ca-certificates', or set tls-ca-file"
                .into(),
        ));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Internal(format!("TLS configuration: {e}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Tells a refused certificate from other TLS trouble, in words that say what to do.
pub(crate) fn classify(error: &std::io::Error) -> Option<Error> {
    use rustls::CertificateError as C;
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    let rustls::Error::InvalidCertificate(reason) = tls else { return None };
    let hint = match reason {
        C::UnknownIssuer => {
            "it is signed by an authority that this machine does not know; for a private one set tls-ca-file"
                .into()
        }
        C::Expired | C::ExpiredContext { .. } => "it has expired, or this machine's clock is wrong".into(),
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "it is not valid yet: is this machine's clock set?".into()
        }
        C::NotValidForName | C::NotValidForNameContext { .. } => {
            format!("it belongs to another host name ({tls})")
        }
        _ => tls.to_string(),
    };
    Some(Error::Certificate(hint))
}
