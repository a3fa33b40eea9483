//! Restart policies, as docker has them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use serde::{Deserialize, Serialize};

/// When a container whose program has ended is started again.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default)]
#[serde(try_from = "String", into = "String")]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// If its exit status is not 0, at most so many times; 0: always then.
    OnFailure(u32),
    /// Whenever it ends.
    Always,
}

impl Restart {
    /// Whether to start again what ended so, and has been started again so many times before.
    #[must_use]
    pub fn applies(self, status: u8, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::OnFailure(most) => status != 0 && (most == 0 || restarts < most),
            Self::Always => true,
        }
    }
}

impl FromStr for Restart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.split_once(':').unwrap_or((text, "0")) {
            ("no", "0") => Self::No,
            ("always", "0") => Self::Always,
            ("on-failure", most) => Self::OnFailure(
                most.parse().with_context(|| format!("{most:?} is not a number of restarts"))?,
            ),
            ("unless-stopped", _) => bail!(
                "unless-stopped needs a daemon that starts containers when the machine does, and \
                 there is none here: use always"
            ),
            _ => bail!("a restart policy is no, always, on-failure or on-failure:NUMBER"),
        })
    }
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure(0) => f.write_str("on-failure"),
            Self::OnFailure(most) => write!(f, "on-failure:{most}"),
            Self::Always => f.write_str("always"),
        }
    }
}

impl TryFrom<String> for Restart {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Restart> for String {
    fn from(restart: Restart) -> Self {
        restart.to_string()
    }
}

/// How long to wait before the next start: twice as long each time, so that a program that cannot
/// run does not keep the machine busy.
#[derive(Debug)]
pub struct BackOff(Duration);

impl BackOff {
    const SHORTEST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(60);
    /// Who has run so long has started well.
    const LONG_ENOUGH: Duration = Duration::from_secs(10);

    /// Before the first end.
    #[must_use]
    pub fn new() -> Self {
        Self(Duration::ZERO)
    }

    /// The wait after it has run for so long.
    pub fn next(&mut self, ran: Duration) -> Duration {
        let longer = if ran >= Self::LONG_ENOUGH { Duration::ZERO } else { self.0 * 2 };
        self.0 = longer.clamp(Self::SHORTEST, Self::LONGEST);
        self.0
    }
}

impl Default for BackOff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_they_are_shown() {
        for text in ["no", "always", "on-failure", "on-failure:3"] {
            assert_eq!(text.parse::<Restart>().unwrap().to_string(), text);
        }
        for text in ["", "never", "always:3", "on-failure:x", "on-failure:-1", "unless-stopped"] {
            assert!(text.parse::<Restart>().is_err(), "{text}");
        }
        assert!(Restart::OnFailure(2).applies(1, 1) && !Restart::OnFailure(2).applies(1, 2));
        assert!(Restart::Always.applies(0, 9) && !Restart::OnFailure(0).applies(0, 0));
    }

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_begins_anew() {
        let mut wait = BackOff::new();
        let short = Duration::from_secs(1);
        let waits: Vec<_> = (0..12).map(|_| wait.next(short).as_millis()).collect();
        assert_eq!(waits[..4], [100, 200, 400, 800]);
        assert_eq!(waits[11], 60_000);
        assert_eq!(wait.next(Duration::from_secs(10)).as_millis(), 100);
    }
}
