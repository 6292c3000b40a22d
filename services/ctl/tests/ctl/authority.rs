//! A certificate authority of the test's own, and a server that it vouches for.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, LazyLock};

use holdfast_testkit::process::fresh_directory;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Made once: `ca.crt`, and `server.crt` with `server.key` for 127.0.0.1.
static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
    let directory = fresh_directory("authority");
    let authority = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=cluster"];
    openssl(&directory, &authority);
    let server = ["-keyout", "server.key", "-out", "server.crt", "-subj", "/CN=api"];
    let signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"];
    let leaf = ["-addext", "basicConstraints=CA:FALSE"];
    openssl(&directory, &[server.as_slice(), &signed, &leaf].concat());
    directory
});

fn openssl(directory: &Path, arguments: &[&str]) {
    let mut command = Command::new("openssl");
    command.current_dir(directory).args(["req", "-x509", "-nodes", "-days", "2"]);
    command.args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]).args(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).stdin(Stdio::null());
    let done = command.output().expect("the package openssl is needed");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The authority's certificate.
pub(crate) fn certificate() -> PathBuf {
    DIRECTORY.join("ca.crt")
}

/// TLS as the server that it vouches for.
pub(crate) fn acceptor() -> TlsAcceptor {
    let chain = CertificateDer::from_pem_file(DIRECTORY.join("server.crt")).expect("just made");
    let key = PrivateKeyDer::from_pem_file(DIRECTORY.join("server.key")).expect("just made");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("they belong together");
    TlsAcceptor::from(Arc::new(config))
}
