//! What a device has where descriptors are all of one kind.

/// Adds it.
macro_rules! by_descriptor {
    ($device:ident) => {
        impl<K: $crate::Key, C: $crate::Context> $device<K, C> {
            /// Takes the descriptor out of the port again, in the mode it is in: non-blocking, but for a file.
            ///
            /// # Errors
            ///
            /// Operations are outstanding (cancel them and take their packets first), or it is closed.
            pub fn release_fd(self) -> Result<rustix::fd::OwnedFd, $crate::Rejected<Self, ()>> {
                self.0.release().map_err(|(error, shared)| $crate::Rejected { error, source: $device(shared), key: () })
            }
        }
    };
}
pub(crate) use by_descriptor;
