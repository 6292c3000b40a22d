//! An AMQP client that sends what no library would.

use std::net::SocketAddr;

use holdfast_runtime::{Connection, Runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// One connection with channel 1 open.
pub struct RawClient(Box<dyn Connection>);

impl RawClient {
    pub async fn connect(address: SocketAddr) -> Self {
        let connect = Runtime::real().connect(&address.to_string()).await;
        let mut client = Self(connect.expect("the broker is there"));
        client.0.write_all(b"AMQP\x00\x00\x09\x01").await.expect("connected");
        client.expect((10, 10)).await;
        let start_ok =
            [&long(b"")[..], &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")];
        client.method(0, (10, 11), &start_ok.concat()).await;
        client.expect((10, 30)).await;
        // As many channels as there may be, 128 KiB frames, no heartbeat.
        client.method(0, (10, 31), &[0, 10, 0, 2, 0, 0, 0, 0]).await;
        client.method(0, (10, 40), &[&short(b"/")[..], &short(b""), &[0]].concat()).await;
        client.expect((10, 41)).await;
        client.method(1, (20, 10), &short(b"")).await;
        client.expect((20, 11)).await;
        client
    }

    /// Publishes a body with property flags and properties as they are given;
    /// returns whether the broker took it.
    pub async fn publish(
        mut self,
        exchange: &str,
        key: &[u8],
        flags: u16,
        properties: &[u8],
        body: &[u8],
    ) -> bool {
        let publish = [&[0, 0][..], &short(exchange.as_bytes()), &short(key), &[0]].concat();
        self.method(1, (60, 40), &publish).await;
        let length = (body.len() as u64).to_be_bytes();
        let header = [&[0, 60, 0, 0][..], &length, &flags.to_be_bytes(), properties].concat();
        self.frame(2, 1, &header).await;
        self.frame(3, 1, body).await;
        // Answered after everything before it, unless that ended the channel.
        let close = [&[0, 200][..], &short(b"bye"), &[0; 4]].concat();
        self.method(1, (20, 40), &close).await;
        self.next_method().await == Some((20, 41))
    }

    async fn expect(&mut self, wanted: (u16, u16)) {
        assert_eq!(self.next_method().await, Some(wanted));
    }

    /// `None` when the broker has hung up.
    async fn next_method(&mut self) -> Option<(u16, u16)> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes(head[3..].try_into().expect("four bytes"));
        let mut payload = vec![0; length as usize + 1];
        self.0.read_exact(&mut payload).await.ok()?;
        assert_eq!(head[0], 1, "a method was expected");
        let [a, b, c, d, ..] = payload.as_slice() else { panic!("a method without a number") };
        Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
    }

    async fn method(&mut self, channel: u8, (class, method): (u16, u16), arguments: &[u8]) {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.frame(1, channel, &payload).await;
    }

    /// The broker may have hung up: that shows when its answer is read.
    async fn frame(&mut self, kind: u8, channel: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
        let frame = [&[kind, 0, channel][..], &length, payload, &[0xce]].concat();
        let _ = self.0.write_all(&frame).await;
    }
}

pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("short")], text].concat()
}

pub fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("small").to_be_bytes();
    [&length, bytes].concat()
}

/// A table that holds a table that holds a table, `depth` times.
pub fn nested_table(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| [&b"\x01kF"[..], &long(&inner)].concat())
}
