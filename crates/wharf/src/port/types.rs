//! What keys and contexts have to be.

/// What a device's key has to be: it is copied into every packet. `()`, a number, an `Arc` are good ones.
pub trait Key: Clone + Send + Sync + 'static {}
impl<K: Clone + Send + Sync + 'static> Key for K {}

/// What an operation's context has to be: it travels from the issuing thread to the one that takes the packet.
pub trait Context: Send + 'static {}
impl<C: Send + 'static> Context for C {}
