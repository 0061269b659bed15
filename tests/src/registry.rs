//! A schema registry as readers see it: `GET /schemas/ids/{id}` and `GET /subjects`, with basic authentication.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A running registry. It serves until the process ends.
#[derive(Debug, Clone)]
pub struct Registry {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// What `GET /schemas/ids/{id}` answers.
    schemas: BTreeMap<u32, String>,
    /// The ids asked for, in order.
    asked: Vec<u32>,
}

impl Registry {
    /// Serves on a port of loopback; who asks must send this `authorization` header, if one is given.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(port: u16, authorization: Option<&'static str>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port for the registry");
        let registry = Self { port, state: Arc::default() };
        let state = registry.state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that hangs up is its own business.
                let _ = answer(&stream, authorization, &state);
            }
        });
        registry
    }

    /// Registers an Avro schema under an id.
    pub fn register(&self, id: u32, schema: &str) {
        let answer = serde_json::json!({ "schema": schema }).to_string();
        self.lock().schemas.insert(id, answer);
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The ids asked for so far, in order.
    pub fn asked(&self) -> Vec<u32> {
        self.lock().asked.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request of one connection, which is then closed.
fn answer(stream: &TcpStream, authorization: Option<&str>, state: &Mutex<State>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut lines = BufReader::new(stream.take(64 << 10)).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    let mut given = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            given = Some(value.trim().to_owned());
        }
    }
    let path = request.split(' ').nth(1).unwrap_or_default();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = if authorization.is_some() && given.as_deref() != authorization {
        ("401 Unauthorized", r#"{"error_code":401,"message":"Unauthorized"}"#.to_owned())
    } else if let Some(id) = path.strip_prefix("/schemas/ids/").and_then(|id| id.parse::<u32>().ok()) {
        state.asked.push(id);
        match state.schemas.get(&id) {
            Some(schema) => ("200 OK", schema.clone()),
            None => ("404 Not Found", format!(r#"{{"error_code":40403,"message":"Schema {id} not found"}}"#)),
        }
    } else if path == "/subjects" {
        ("200 OK", "[]".to_owned())
    } else {
        ("404 Not Found", r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#.to_owned())
    };
    write!(
        &mut &*stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/vnd.schemaregistry.v1+json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
