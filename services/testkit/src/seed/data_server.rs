//! The seed's data server: heartbeats, locates and files, nothing more.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{SeedQueue, unquote};

type Files = Arc<Mutex<HashMap<String, Vec<u8>>>>;

/// Runs until it is dropped.
#[derive(Debug)]
pub struct SeedDataServer {
    address: String,
    files: Files,
    heart: JoinHandle<()>,
    tasks: [JoinHandle<()>; 2],
}

impl SeedDataServer {
    /// `main`: heartbeats every `interval`, which the seed has at 5 s.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn start(url: &str, interval: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let files = Files::default();
        let heart = tokio::spawn(beat(SeedQueue::new(url).await, address.clone(), interval));
        let queue = SeedQueue::new(url).await;
        queue.bind("dataServers").await;
        let locate = tokio::spawn(answer_locates(queue, address.clone(), Arc::clone(&files)));
        let http = tokio::spawn(serve(listener, Arc::clone(&files)));
        Self { address, files, heart, tasks: [locate, http] }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Ends the heartbeats and nothing else.
    pub fn fall_silent(&self) {
        self.heart.abort();
    }

    /// Puts a file there, under the escaped name.
    pub fn insert(&self, escaped: &str, content: &[u8]) {
        lock(&self.files).insert(escaped.to_owned(), content.to_vec());
    }

    /// What is stored under the escaped name.
    #[must_use]
    pub fn file(&self, escaped: &str) -> Option<Vec<u8>> {
        lock(&self.files).get(escaped).cloned()
    }

    /// How many files it has.
    #[must_use]
    pub fn file_count(&self) -> usize {
        lock(&self.files).len()
    }
}

impl Drop for SeedDataServer {
    fn drop(&mut self) {
        self.heart.abort();
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn lock(files: &Files) -> std::sync::MutexGuard<'_, HashMap<String, Vec<u8>>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `heartbeat.StartHeartbeat`.
async fn beat(queue: SeedQueue, address: String, interval: Duration) {
    loop {
        queue.publish("apiServers", &address).await;
        tokio::time::sleep(interval).await;
    }
}

/// `locate.StartLocate`.
async fn answer_locates(mut queue: SeedQueue, address: String, files: Files) {
    queue.consume().await;
    loop {
        let Some(message) = queue.next(Duration::from_secs(3_600)).await else { continue };
        let name = unquote(&message.data);
        let reply_to = message.properties.reply_to().as_ref().map(ToString::to_string);
        let (true, Some(reply_to)) = (lock(&files).contains_key(&name), reply_to) else {
            continue;
        };
        queue.send(&reply_to, &address).await;
    }
}

/// `http.ListenAndServe` with `objects.Handler`.
async fn serve(listener: TcpListener, files: Files) {
    while let Ok((stream, _)) = listener.accept().await {
        let files = Arc::clone(&files);
        tokio::spawn(async move {
            // The client has gone: nobody is left to be told.
            let _ = handle(stream, &files).await;
        });
    }
}

async fn handle(stream: TcpStream, files: &Files) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut first, mut length, mut chunked) = (String::new(), 0, false);
    stream.read_line(&mut first).await?;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        chunked |= line == "transfer-encoding: chunked";
    }
    let mut parts = first.split(' ');
    let (method, path) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    // strings.Split(r.URL.EscapedPath(), "/")[2]
    let object = path.split('/').nth(2).unwrap_or("").to_owned();
    let (status, body) = match method {
        "PUT" => {
            let body = read_body(&mut stream, length, chunked).await?;
            lock(files).insert(object, body);
            ("200 OK", Vec::new())
        }
        "GET" => match lock(files).get(&object).cloned() {
            Some(content) => ("200 OK", content),
            None => ("404 Not Found", Vec::new()),
        },
        _ => ("405 Method Not Allowed", Vec::new()),
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes()).await?;
    stream.get_mut().write_all(&body).await?;
    stream.get_mut().shutdown().await
}

async fn read_body(
    stream: &mut BufReader<TcpStream>,
    length: usize,
    chunked: bool,
) -> io::Result<Vec<u8>> {
    if !chunked {
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        return Ok(body);
    }
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await?;
        chunk.truncate(size);
        if size == 0 {
            return Ok(body);
        }
        body.extend(chunk);
    }
}
