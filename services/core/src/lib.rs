//! The decisions of Holdfast, and nothing else.
//!
//! No I/O, no clock, no randomness, no async runtime: whatever a decision
//! needs is passed in. That is what lets one piece of code be property-tested,
//! model-checked and run in production.
//!
//! | module | decides |
//! |---|---|
//! | [`name`] | which bucket and key a request means |
//! | [`node`] | who a data server is, which run of it, and where |
//! | [`version`] | which content of a key is newer |
//! | [`object`] | what is known of one stored version |
//! | [`placement`] | where an object should be |
//! | [`roster`] | who may hold data |
//! | [`membership`] | who is heard, and who is silent |
//! | [`locate`] | what the answers of the members prove |
//! | [`list`] | what their pages prove, merged |
//! | [`admission`] | when a new member may take data |
//! | [`electorate`] | which members answer for a name, once all has settled |
//! | [`lifecycle`] | who drains, who is lost, who retires |
//! | [`policy`] | how many copies there are, and how many answer for an object |
//! | [`stamp`] | how old a message is |
//! | [`replica`] | what one member takes, promises and keeps |
//! | [`quorum`] | what the answers to a write prove |
//! | [`repair`] | what a member does about the copies that it has |
//! | [`wire`] | what the messages look like |
//! | [`settings`] | how environment variables are read |

pub mod admission;
pub mod electorate;
mod fields;
pub mod lifecycle;
pub mod list;
pub mod locate;
pub mod membership;
pub mod name;
pub mod node;
pub mod object;
pub mod placement;
pub mod policy;
pub mod quorum;
pub mod repair;
pub mod replica;
pub mod roster;
pub mod settings;
pub mod stamp;
#[cfg(test)]
mod test_support;
pub mod version;
pub mod wire;
