//! What a container does just now, in docker's words.

use std::fmt;

use anyhow::Result;

use crate::store::Container;

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was made, and its program has never run.
    Created,
    /// Its program runs.
    Running,
    /// All its processes stand still.
    Paused,
    /// Its program has ended, and is to be started again.
    Restarting,
    /// Its program has ended.
    Exited,
}

impl Status {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Created, Self::Running, Self::Paused, Self::Restarting, Self::Exited];

    /// What this one does.
    pub fn of(container: &Container) -> Result<Self> {
        let state = &container.state;
        Ok(match (container.is_alive()?, state.process, state.exited, state.started) {
            (true, Some(_), ..) if container.is_paused().unwrap_or(false) => Self::Paused,
            (true, Some(_), ..) => Self::Running,
            (true, None, Some(_), Some(_)) => Self::Restarting,
            (false, _, Some(_), Some(_)) => Self::Exited,
            _ => Self::Created, // also one that could not be started
        })
    }

    /// Whether it has processes.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// docker's `Running`: it has a monitor, which may be waiting to start it again.
    #[must_use]
    pub fn is_running(self) -> bool {
        self.is_up() || self == Self::Restarting
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        })
    }
}
