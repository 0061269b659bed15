//! Apache Kafka that lets nobody in without TLS, a password or a token, and an endpoint that gives tokens.
//!
//! Certificates are made anew for each broker, by openssl: an authority, a broker for 127.0.0.1, and a client.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::kafka::{Extras, KafkaBroker};
use crate::place::{self, Missing};

/// The user that may come in, and its password.
pub const USER: (&str, &str) = ("avouch", "open-sesame-7");

/// A broker with a listener for each way in, all for [`USER`].
#[derive(Debug)]
pub struct SecuredBroker {
    /// The broker; its plain listener is for the harness.
    pub broker: KafkaBroker,
    certificates: PathBuf,
    ports: [u16; 4],
}

impl SecuredBroker {
    /// Makes certificates and starts it.
    ///
    /// # Errors
    /// [`Missing`] where there is no Java, Kafka or openssl.
    ///
    /// # Panics
    /// If openssl or the broker fails.
    pub fn start() -> Result<Self, Missing> {
        place::find_program("openssl", &[]).ok_or_else(|| Missing("openssl is not installed".to_owned()))?;
        let certificates = place::fresh_directory("certificates");
        make_certificates(&certificates);
        let ports = [(); 4].map(|()| place::free_port());
        let broker = KafkaBroker::start_with(|_| extras(&certificates, ports))?;
        Ok(Self { broker, certificates, ports })
    }

    fn at(port: u16) -> String {
        format!("127.0.0.1:{port}")
    }

    /// TLS, anyone.
    pub fn tls(&self) -> String {
        Self::at(self.ports[0])
    }

    /// TLS, with a certificate of ours.
    pub fn mutual_tls(&self) -> String {
        Self::at(self.ports[1])
    }

    /// SASL over TLS.
    pub fn sasl_tls(&self) -> String {
        Self::at(self.ports[2])
    }

    /// SASL without TLS.
    pub fn sasl_plain(&self) -> String {
        Self::at(self.ports[3])
    }

    /// A file of the certificates: `ca.pem`, `client.pem`, `client.key` (under the password `key-7`), and `other-ca.pem` of an
    /// authority that has signed nothing.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.certificates.join(name)
    }
}

fn openssl(directory: &Path, arguments: &str) {
    let done = Command::new("openssl").args(arguments.split(' ')).current_dir(directory).output();
    let done = done.unwrap_or_else(|error| panic!("openssl: {error}"));
    assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

pub(crate) fn make_certificates(directory: &Path) {
    let write = |name: &str, text: &str| {
        std::fs::write(directory.join(name), text).unwrap_or_else(|error| panic!("{name}: {error}"));
    };
    let read =
        |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    write("broker.ext", "subjectAltName=IP:127.0.0.1\n");
    for (name, subject) in [("ca", "/CN=tests"), ("other-ca", "/CN=others")] {
        openssl(
            directory,
            &format!("req -x509 -newkey rsa:2048 -nodes -days 2 -subj {subject} -keyout {name}.key -out {name}.pem"),
        );
    }
    for (name, more) in [("broker", " -extfile broker.ext"), ("client", "")] {
        openssl(
            directory,
            &format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}-open.key -out {name}.csr"),
        );
        openssl(
            directory,
            &format!("x509 -req -days 2 -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem{more}"),
        );
    }
    openssl(directory, "pkcs8 -topk8 -v2 aes-256-cbc -passout pass:key-7 -in client-open.key -out client.key");
    openssl(directory, "pkcs8 -topk8 -nocrypt -in broker-open.key -out broker.key");
    write("broker-chain.pem", &format!("{}{}", read("broker.key"), read("broker.pem")));
}

fn extras(certificates: &Path, [tls, mutual, sasl_tls, sasl_plain]: [u16; 4]) -> Extras {
    let listener = |name: &str, protocol: &str, port| (name.to_owned(), protocol.to_owned(), port);
    let (user, password) = USER;
    let mut properties = format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={dir}/broker-chain.pem\nssl.truststore.type=PEM\n\
         ssl.truststore.location={dir}/ca.pem\nlistener.name.mutual.ssl.client.auth=required\n",
        dir = certificates.display()
    );
    let module = "org.apache.kafka.common.security";
    for name in ["sasltls", "saslplain"] {
        properties.push_str(&format!(
            "listener.name.{name}.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             listener.name.{name}.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_{user}=\"{password}\";\n\
             listener.name.{name}.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
             listener.name.{name}.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
             listener.name.{name}.oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"broker\";\n",
        ));
    }
    let scram = |mechanism| ["--add-scram".to_owned(), format!("{mechanism}=[name={user},password={password}]")];
    Extras {
        listeners: vec![
            listener("TLS", "SSL", tls),
            listener("MUTUAL", "SSL", mutual),
            listener("SASLTLS", "SASL_SSL", sasl_tls),
            listener("SASLPLAIN", "SASL_PLAINTEXT", sasl_plain),
        ],
        properties,
        format: [scram("SCRAM-SHA-256"), scram("SCRAM-SHA-512")].concat(),
    }
}

/// An unsecured JWT of [`USER`], good for so many seconds. Kafka's own validator for development takes it.
///
/// # Panics
/// If the clock stands before 1970.
pub fn token(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
    let claims = format!(r#"{{"sub":"{}","iat":{now},"exp":{}}}"#, USER.0, now + seconds);
    format!("{}.{}.", base64url(br#"{"alg":"none"}"#), base64url(claims.as_bytes()))
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0u32, |g, (i, b)| g | u32::from(*b) << (16 - 8 * i));
        for i in 0..=chunk.len() {
            out.push(char::from(DIGITS[(group >> (18 - 6 * i)) as usize & 63]));
        }
    }
    out
}

/// A token endpoint that knows one client: `avouch` with the secret `s3cr=t&`. Ends with the process.
#[derive(Debug)]
pub struct TokenEndpoint {
    port: u16,
    given: Arc<AtomicUsize>,
}

impl TokenEndpoint {
    /// Starts it; its tokens are good for so many seconds.
    ///
    /// # Panics
    /// If no port is free.
    pub fn start(seconds: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let given = Arc::new(AtomicUsize::new(0));
        let counted = given.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that breaks off is its own affair.
                let _ = answer(stream, seconds, &counted);
            }
        });
        Self { port, given }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/oauth2/token", self.port)
    }

    /// How many tokens it has given.
    pub fn given(&self) -> usize {
        self.given.load(Ordering::Relaxed)
    }
}

fn answer(mut stream: TcpStream, seconds: u64, given: &AtomicUsize) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        request.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                let known =
                    body == "grant_type=client_credentials&client_id=avouch&client_secret=s3cr%3Dt%26&scope=kafka";
                let (status, body) = if known {
                    given.fetch_add(1, Ordering::Relaxed);
                    ("200 OK", format!(r#"{{"access_token":"{}","expires_in":{seconds}}}"#, token(seconds)))
                } else {
                    ("401 Unauthorized", r#"{"error":"invalid_client"}"#.to_owned())
                };
                let length = body.len();
                return stream.write_all(
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
                        .as_bytes(),
                );
            }
        }
        if n == 0 {
            return Ok(());
        }
    }
}
