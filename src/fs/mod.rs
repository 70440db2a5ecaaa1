//! Trees and files: [`rootfs::Rootfs`], whose paths the kernel resolves inside the tree, and staging directories for results.

pub mod rootfs;
pub(crate) mod staging;
