//! The server and the client over real sockets.

mod client;
mod ending;
mod instrumented;
mod limits;
mod protocol;
mod support;
