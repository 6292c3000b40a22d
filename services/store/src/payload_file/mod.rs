//! A payload in a file of its own, as the engines share it: self-describing, so
//! that it can be read without anything beside it.
//!
//! | module | does |
//! |---|---|
//! | `layout` | the bytes of a file |
//! | `checksum` | block table and digest of a payload that comes in pieces |
//! | `damage` | what was found where something else had been written |
//! | `front` | what is written of one that is not complete yet |
//! | `object_file` | a file that is open for reading |
//! | `stream` | its payload, read ahead and verified chunk by chunk |

pub(crate) mod checksum;
pub(crate) mod damage;
pub(crate) mod front;
pub(crate) mod layout;
pub(crate) mod object_file;
pub(crate) mod stream;
