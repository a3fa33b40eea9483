//! `ps --filter`

use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};
use serde_json::Value;

use crate::bundle::Annotation;
use crate::image::{Base, Images};
use crate::mounts;
use crate::network::Networks;
use crate::status::Status;
use crate::store::{Container, Store};

/// One thing that has to be true.
#[derive(Debug, Clone)]
pub enum Filter {
    /// A part of its id.
    Id(Part),
    /// A part of its name.
    Name(Part),
    /// It has the label, and if there is one, the value.
    Label(String, Option<String>),
    /// What it does.
    Status(Status),
    /// How its program ended.
    Exited(u8),
    /// It is made from this image.
    Ancestor(String),
    /// It is on this network.
    Network(String),
    /// This directory is mounted in it, or something on this place.
    Volume(String),
}

/// A part of a word; with `^` its beginning, with `$` its end. docker's are regular expressions.
#[derive(Debug, Clone)]
pub struct Part(String);

impl Part {
    fn parse(text: &str) -> Result<Self> {
        let part = text.trim_start_matches('^').trim_end_matches('$');
        let is_plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        ensure!(is_plain, "{text:?} is no part of a name; of patterns there are only ^ and $");
        Ok(Self(text.to_owned()))
    }

    fn is_in(&self, word: &str) -> bool {
        let part = self.0.strip_prefix('^');
        let (begins, part) = (part.is_some(), part.unwrap_or(&self.0));
        match (begins, part.strip_suffix('$')) {
            (true, Some(whole)) => word == whole,
            (true, None) => word.starts_with(part),
            (false, Some(end)) => word.ends_with(end),
            (false, None) => word.contains(part),
        }
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = text.split_once('=').context("a filter is KEY=VALUE")?;
        let own = || value.to_owned();
        Ok(match key {
            "id" => Self::Id(Part::parse(value)?),
            "name" => Self::Name(Part::parse(&value.replacen('/', "", 1))?),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(own(), None),
            },
            "status" => {
                let status = Status::ALL.into_iter().find(|status| status.to_string() == value);
                Self::Status(status.with_context(|| {
                    format!(
                        "a status is {}",
                        Status::ALL.map(|status| status.to_string()).join(", ")
                    )
                })?)
            }
            "exited" => Self::Exited(value.parse().context("an exit status is 0 to 255")?),
            "ancestor" => Self::Ancestor(own()),
            "network" => Self::Network(own()),
            "volume" => Self::Volume(own()),
            _ => bail!(
                "{key:?} is not known here: id, name, label, status, exited, ancestor, network or volume"
            ),
        })
    }
}

/// All of them. As with docker, of those with the same key one has to be true; but all labels.
pub struct Filters<'f>(Vec<(&'f Filter, Option<String>)>);

impl<'f> Filters<'f> {
    /// Looks up what has an id.
    pub fn new(filters: &'f [Filter], store: &Store) -> Result<Self> {
        let mut found = Vec::new();
        for filter in filters {
            let meant = match filter {
                Filter::Ancestor(name) if Base::is_name(name) => {
                    Images::open(store)?.find(name)?.map(|image| image.id)
                }
                Filter::Network(name) => {
                    Networks::of(store).meant(name)?.map(|network| network.name)
                }
                _ => None,
            };
            found.push((filter, meant));
        }
        Ok(Self(found))
    }

    /// Whether containers that do not run are meant, too.
    pub fn are_about_status(&self) -> bool {
        self.0.iter().any(|(filter, _)| matches!(filter, Filter::Status(_)))
    }

    /// Whether config.json is needed.
    pub fn are_about_config(&self) -> bool {
        self.0.iter().any(|(filter, _)| matches!(filter, Filter::Network(_) | Filter::Volume(_)))
    }

    /// Whether this container is wanted.
    pub fn admit(&self, container: &Container, status: Status, config: &Value) -> bool {
        let is_true = |(filter, meant): &(&Filter, Option<String>)| {
            is_true(filter, meant.as_deref(), container, status, config)
        };
        self.0.iter().all(|one| match one.0 {
            Filter::Label(..) => is_true(one),
            other => {
                let same = |(filter, _): &&(&Filter, _)| {
                    std::mem::discriminant(*filter) == std::mem::discriminant(other)
                };
                self.0.iter().filter(same).any(is_true)
            }
        })
    }
}

fn is_true(
    filter: &Filter,
    meant: Option<&str>,
    container: &Container,
    status: Status,
    config: &Value,
) -> bool {
    let state = &container.state;
    match filter {
        Filter::Id(part) => part.is_in(&state.id),
        Filter::Name(part) => part.is_in(&state.name),
        Filter::Label(key, wanted) => {
            let value = state.labels.get(key);
            value.is_some_and(|value| wanted.as_ref().is_none_or(|wanted| wanted == value))
        }
        Filter::Status(wanted) => *wanted == status,
        Filter::Exited(wanted) => status == Status::Exited && state.exited == Some(*wanted),
        Filter::Ancestor(name) => {
            state.image == *name || (meant.is_some() && state.image_id.as_deref() == meant)
        }
        Filter::Network(name) => {
            let network = config["annotations"][Annotation::NETWORK].as_str();
            network == Some(name) || (meant.is_some() && network == meant)
        }
        Filter::Volume(place) => mounts::of_user(config, &state.image).iter().any(|mount| {
            [&mount["Source"], &mount["Destination"]].into_iter().any(|path| path == place)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, Part};

    #[test]
    fn a_part_of_a_name_may_be_its_beginning_or_end() {
        for (part, yes, no) in [
            ("we", &["web", "owe"][..], &["w"][..]),
            ("^we", &["web"], &["owe"]),
            ("eb$", &["web"], &["ebb"]),
            ("^web$", &["web"], &["web1", "aweb"]),
            ("a.b", &["xa.b"], &["axb"]),
        ] {
            let part = Part::parse(part).unwrap();
            assert!(yes.iter().all(|word| part.is_in(word)), "{part:?}");
            assert!(!no.iter().any(|word| part.is_in(word)), "{part:?}");
        }
        for wrong in
            ["name=a*", "name", "status=gone", "exited=x", "exited=256", "health=x", "id=["]
        {
            assert!(wrong.parse::<Filter>().is_err(), "{wrong}");
        }
    }
}
