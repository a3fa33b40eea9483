//! Step 1: namespaces.
//!
//! A container is a process that sees its own copy of some global things: mounts, host name,
//! process numbers, network, users. Each such copy is a *namespace* (namespaces(7)), and all
//! of them come from one system call, clone3(2).
//!
//! The map of this crate, in the order in which a container comes to life:
//!
//! | file | what it holds |
//! |---|---|
//! | [`args`](Args) | the command line: which namespaces, which host name, which program |
//! | [`signals`](Signals) | Ctrl-C waits until we can clean up, then goes to the container |
//! | [`namespace`](Namespaces) | the eight namespaces and their clone flags |
//! | [`child`](Child) | one clone, then parent and child in step with each other until exec |
//! | [`message`](Message) | all that parent and child ever say to each other |
//! | [`idmap`](write_id_maps) | who is root in a user namespace |
//! | [`failure`](Failure) | errors that carry docker's exit statuses, and what is printed |
//! | `caller` | umask and ignored signals: not to be inherited |

mod args;
mod caller;
mod child;
mod failure;
mod idmap;
mod message;
mod namespace;
mod signals;

pub use args::{Args, Program, parse_hostname};
pub use child::{Child, Prepared, exit_status, pidfd_open, pidfd_send_signal};
pub use failure::{Failure, exit, parse, printable, say, see, tell, warn};
pub use idmap::{IdMaps, IdRange, in_user_namespace, map_one_id, write_id_maps};
pub use message::{Channel, Message};
pub use namespace::{Namespace, Namespaces};
pub use signals::Signals;
