//! The data service: keeps objects on one volume and says what it holds.
//!
//! | room | purpose |
//! |---|---|
//! | [`server`] | puts the parts together and runs them |
//! | [`volume`] | what objects are kept in |
//! | [`identity`], [`admission`] | who this is, and becoming a member |
//! | [`report`], [`heartbeat`] | telling the others |
//! | [`gate`] | all that may happen to a name; with [`floor`] |
//! | [`locate`] | answering "do you hold this?" |
//! | [`list`] | answering "what do you have there?" |
//! | [`handlers`], [`staging`] | object bytes, for other services |
//! | [`copies`] | taking them from other members |
//! | [`repair`] | seeing to it that they are where they belong |
//! | [`scrub`] | finding damage before it matters |
//! | [`steward`], [`retirement`], [`rebirth`] | the lives of members, this one's too |
//! | [`commands`] | what operators do with a volume |
//!
//! Clients may also send the seed's `PUT` and `GET /objects/<name>` here: the
//! coordinator that an api runs takes them.

pub mod admission;
pub mod commands;
pub mod config;
pub mod copies;
pub mod error;
pub mod floor;
pub mod gate;
pub mod handlers;
mod health;
pub mod heartbeat;
pub mod identity;
pub mod list;
pub mod locate;
pub mod metrics;
mod name_locks;
pub mod rebirth;
pub mod repair;
pub mod report;
pub mod retirement;
pub mod routes;
pub mod scrub;
pub mod server;
pub mod staging;
pub mod steward;
mod superseded;
#[cfg(test)]
mod test_support;
pub mod volume;
