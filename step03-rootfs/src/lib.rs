//! Step 3: the root file system.
//!
//! An image is in essence a rootfs: a directory with everything that a program expects below
//! `/`. This crate lays a writable layer over it, puts /proc, /sys and /dev in, makes it the
//! root of the mount namespace, and lets go of the host's tree.
//!
//! The map of this crate:
//!
//! | file | what it holds |
//! |---|---|
//! | [`args`](Args) | `--rootfs`, `--volume`, `--workdir` |
//! | [`image`](Image) | `host`, or any directory |
//! | [`mount`](Mount) | a mount as OCI's config.json has it, and the default ones |
//! | [`rootfs`](Rootfs) | the order of work: open, pivot, attach, hide |
//! | [`owners`](Owners) | ID-mapped mounts, for who is not the host's root |
//! | `staging` | overlays, and the tmpfs that takes what the container writes |
//! | [`root`](Root) | paths inside the image, resolved inside the image |
//! | `devices` | /dev: six nodes, and no way to add one |
//! | [`sys`] | the kernel's mount calls, one function each |

mod args;
mod devices;
mod image;
mod mount;
mod owners;
mod root;
mod rootfs;
mod staging;
pub mod sys;

pub use args::{Args, Volume, parse_inside};
pub use devices::Device;
pub use image::{Image, Layer, write_skeleton};
pub use mount::{Mount, default_mounts};
pub use owners::Owners;
pub use root::Root;
pub use rootfs::{MASKED_PATHS, Parts, READONLY_PATHS, Rootfs, mask, pivot};
pub use staging::overlay;
