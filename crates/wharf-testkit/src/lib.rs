//! What the tests of several packages here share. It knows nothing of wharf itself, so that wharf's own tests can use
//! it.

pub mod blind;
pub mod plain;
