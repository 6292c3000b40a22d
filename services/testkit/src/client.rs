//! An HTTP client that sends exactly the bytes it is told to: what no polite
//! client would send is sent as well.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Nothing a test waits for takes longer.
const LIMIT: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its headers, in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The code of a problem; empty for anything else.
    #[must_use]
    pub fn code(&self) -> String {
        let parsed: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        parsed.get("code").and_then(|code| code.as_str()).unwrap_or_default().to_owned()
    }
}

/// A connection, kept for many requests.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody listens.
    pub async fn open(address: &str) -> io::Result<Self> {
        let stream = limited(TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::new(stream), host: address.to_owned() })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the other side has closed.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        limited(self.stream.get_mut().write_all(bytes)).await
    }

    /// Sends the head of a request; the caller then sends what it announced.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_head(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes()).await
    }

    /// A whole request and its whole answer.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        if method == "PUT" || method == "POST" || !body.is_empty() {
            headers.push(("Content-Length", &length));
        }
        self.send_head(method, path, &headers).await?;
        self.send(body).await?;
        self.response(method).await
    }

    /// The head of the next answer, interim ones included.
    ///
    /// # Errors
    /// When the connection breaks or what comes is no HTTP.
    pub async fn head(&mut self) -> io::Result<Response> {
        let first = self.line().await?;
        let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.ok_or_else(|| broken(&format!("no status line: {first:?}")))?;
        let mut response = Response { status, ..Response::default() };
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(response);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken("no header"))?;
            response.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The next answer, whole; `method` tells whether it has a body.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub async fn response(&mut self, method: &str) -> io::Result<Response> {
        let mut response = self.head().await?;
        while response.status < 200 {
            response = self.head().await?;
        }
        if method == "HEAD" || response.status == 204 || response.status == 304 {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some() {
            response.body = self.chunks().await?;
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(|_| broken("no length"))?;
            response.body = vec![0; length];
            limited(self.stream.read_exact(&mut response.body)).await?;
        } else {
            limited(self.stream.read_to_end(&mut response.body)).await?;
        }
        Ok(response)
    }

    /// Reads into `buffer`; 0 bytes once the other side has closed.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        limited(self.stream.read(buffer)).await
    }

    /// Whether the other side closes, in whichever way, before it says
    /// anything more.
    pub async fn is_closed(&mut self) -> bool {
        matches!(self.read(&mut [0]).await, Ok(0) | Err(_))
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if limited(self.stream.read_line(&mut line)).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line().await?;
            let size = usize::from_str_radix(&size, 16).map_err(|_| broken("no chunk size"))?;
            let start = body.len();
            body.resize(start + size, 0);
            let chunk = body.get_mut(start..).expect("it was just made longer");
            limited(self.stream.read_exact(chunk)).await?;
            self.line().await?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
}

/// One request on a connection of its own.
///
/// # Errors
/// When the connection breaks.
pub async fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    Connection::open(address).await?.request(method, path, headers, body).await
}

/// GET.
///
/// # Errors
/// As [`request`].
pub async fn get(address: &str, path: &str) -> io::Result<Response> {
    request(address, "GET", path, &[], b"").await
}

/// PUT.
///
/// # Errors
/// As [`request`].
pub async fn put(address: &str, path: &str, body: &[u8]) -> io::Result<Response> {
    request(address, "PUT", path, &[], body).await
}

/// DELETE.
///
/// # Errors
/// As [`request`].
pub async fn delete(address: &str, path: &str) -> io::Result<Response> {
    request(address, "DELETE", path, &[], b"").await
}

async fn limited<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(LIMIT, work).await.map_err(|_| io::ErrorKind::TimedOut)?
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// How many copies of the newest version are in an answer of
/// `GET /locate/<name>?replicas`, which lists the newest first.
#[must_use]
pub fn copies_of_newest(listed: &serde_json::Value) -> usize {
    let replicas = listed.as_array().map(Vec::as_slice).unwrap_or_default();
    let version = |replica: &serde_json::Value| replica.get("version").cloned();
    let newest = replicas.first().map(version);
    replicas.iter().filter(|replica| Some(version(replica)) == newest).count()
}
