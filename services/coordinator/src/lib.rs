//! What an api and a data server both do for clients.
//!
//! | room | purpose |
//! |---|---|
//! | [`routes`] → [`handlers`] | HTTP: what a client asks for |
//! | [`objects`] | PUT, GET, DELETE over many data servers |
//! | [`locator`] | where an object is |
//! | [`cluster`] | who the data servers are |
//! | [`data_servers`] | the client of one data server |
//! | [`error`] | what clients are told when something is wrong |
//! | [`process`], [`service`], [`assembly`] | running all of this: settings, sockets, start and stop |

pub mod admin;
mod admin_port;
pub mod assembly;
pub mod cluster;
pub mod data_servers;
pub mod error;
pub mod handlers;
pub mod locator;
pub mod metrics;
pub mod objects;
pub mod process;
pub mod routes;
pub mod service;
pub mod settings;
#[cfg(test)]
mod test_support;
