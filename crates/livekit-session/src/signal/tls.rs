// SPDX-License-Identifier: MIT OR Apache-2.0

//! TLS for signalling: the system's certificate authorities, plus a file of the user's.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::Mutex;

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

/// How long certificates that were read are used. After that they are read anew: they may have been renewed.
const FRESH: Duration = Duration::from_secs(600);

struct Loaded {
    ca_file: Option<PathBuf>,
    config: Arc<ClientConfig>,
    at: Instant,
}

static LOADED: Mutex<Vec<Loaded>> = Mutex::const_new(Vec::new());

/// [`client_config`] for all sessions that have the same `ca_file`: some hundred certificates need not be read, and
/// held, once for each. Whoever comes while they are being read waits for the same reading.
pub(crate) async fn shared_config(ca_file: Option<PathBuf>) -> Result<Arc<ClientConfig>, Error> {
    let mut loaded = LOADED.lock().await;
    loaded.retain(|l| l.at.elapsed() < FRESH);
    if let Some(found) = loaded.iter().find(|l| l.ca_file == ca_file) {
        return Ok(found.config.clone());
    }
    // From a disk that may be slow: not on the thread that carries the media.
    let path = ca_file.clone();
    let config = crate::runtime::run_apart("livekit-tls", move || client_config(path.as_deref()))
        .await
        .map_err(|_| Error::Internal("reading certificates failed".into()))??;
    loaded.push(Loaded { ca_file, config: config.clone(), at: Instant::now() });
    Ok(config)
}

/// Reads the certificates anew next time.
pub(crate) async fn forget() {
    LOADED.lock().await.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn certificates_are_read_once_for_all_and_again_when_they_were_refused() {
        // The system's own may be missing here; what is refused without them is refused each time.
        let Ok(first) = shared_config(None).await else { return };
        let again = shared_config(None).await.unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let missing = shared_config(Some("/nowhere/ca.pem".into())).await.unwrap_err();
        assert!(matches!(missing, Error::TlsCaFile { .. }), "{missing}");
        assert!(Arc::ptr_eq(&first, &shared_config(None).await.unwrap()));
        forget().await;
        assert!(!Arc::ptr_eq(&first, &shared_config(None).await.unwrap()));
    }
}
