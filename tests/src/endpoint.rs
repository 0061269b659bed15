//! An HTTP endpoint in the test's own process, which takes, refuses, fails or dies as the test says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place;

/// One POST it has answered.
#[derive(Debug, Clone)]
pub struct Post {
    /// The request's path.
    pub path: String,
    /// Header names in lower case, and their values.
    pub headers: Vec<(String, String)>,
    /// The body, as it came.
    pub body: String,
    /// The status it was answered with.
    pub status: u16,
    /// When it came.
    pub at: Instant,
}

impl Post {
    /// The value of a header; empty if it was not sent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.body))
    }
}

/// What a request is answered with: a status and headers. `None` closes the connection without an answer.
pub type Answer = Option<(u16, Vec<(&'static str, String)>)>;

type Judge = Box<dyn FnMut(&Value) -> Answer + Send>;

struct State {
    judge: Judge,
    posts: Vec<Post>,
}

/// The endpoint. It answers on a thread of its own until the test's process ends.
#[derive(Clone)]
pub struct Endpoint {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Endpoint {
    /// Starts it on a free port; `judge` answers each body.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(judge: impl FnMut(&Value) -> Answer + Send + 'static) -> Self {
        let port = place::free_port();
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("a free port");
        let state = Arc::new(Mutex::new(State { judge: Box::new(judge), posts: Vec::new() }));
        let endpoint = Self { port, state };
        let serving = endpoint.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let serving = serving.clone();
                // A connection that breaks is the client's to notice.
                std::thread::spawn(move || serving.serve(connection).ok());
            }
        });
        endpoint
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on answers otherwise.
    pub fn judge(&self, judge: impl FnMut(&Value) -> Answer + Send + 'static) {
        self.lock().judge = Box::new(judge);
    }

    /// What it has answered so far.
    pub fn posts(&self) -> Vec<Post> {
        self.lock().posts.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, connection: TcpStream) -> std::io::Result<()> {
        connection.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut reader = BufReader::new(connection.try_clone()?);
        let mut connection = connection;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut headers = Vec::new();
            loop {
                let mut line = String::new();
                reader.read_line(&mut line)?;
                let Some((name, value)) = line.trim_end().split_once(':') else { break };
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            let length = headers.iter().find(|(n, _)| n == "content-length").and_then(|(_, v)| v.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body)?;
            let body = String::from_utf8_lossy(&body).into_owned();
            let at = Instant::now();
            let json = serde_json::from_str(&body).unwrap_or(Value::Null);
            let Some((status, more)) = ({ (self.lock().judge)(&json) }) else { return Ok(()) };
            self.lock().posts.push(Post { path, headers, body, status, at });
            let more: String = more.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            let words = if status < 300 { "" } else { "the endpoint says no" };
            write!(connection, "HTTP/1.1 {status} X\r\n{more}content-length: {}\r\n\r\n{words}", words.len())?;
        }
    }
}
