//! `final images`

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::format::Format;
use crate::image::{Images, Name, Stored, date};
use crate::store::Store;

/// `images [OPTIONS] [NAME[:TAG]]`
#[derive(Args, Debug, Clone)]
pub struct ImagesArgs {
    /// Only the ids
    #[arg(long, short)]
    pub quiet: bool,

    /// Ids in full
    #[arg(long)]
    pub no_trunc: bool,

    /// table, json, or a template: '{{.Repository}}:{{.Tag}}'
    #[arg(long, value_name = "FORMAT", conflicts_with = "quiet")]
    pub format: Option<Format>,

    /// Only images with this name; without a tag, with any
    #[arg(value_name = "NAME[:TAG]", value_parser = parse_wanted)]
    pub name: Option<(Name, bool)>,
}

/// A name, and whether any tag will do.
fn parse_wanted(text: &str) -> Result<(Name, bool)> {
    let name = text.parse::<Name>()?;
    let any_tag = !text.contains('@') && !text.ends_with(&name.version.to_string());
    Ok((name, any_tag))
}

/// Lists the images, in docker's columns.
pub fn run(args: &ImagesArgs) -> Result<()> {
    let store = Store::open()?;
    let images = Images::open(&store)?;
    let mut all = images.list()?;
    if let Some((wanted, any_tag)) = &args.name {
        all.retain(|image| {
            image.name.as_ref().is_some_and(|name| {
                name == wanted || (*any_tag && name.short_repository() == wanted.short_repository())
            })
        });
    }
    let id = |image: &Stored| {
        if args.no_trunc { format!("sha256:{}", image.id) } else { image.short_id().to_owned() }
    };
    if args.quiet {
        let mut ids: Vec<_> = all.iter().map(|image| id(image) + "\n").collect();
        ids.dedup();
        return super::print(&ids.concat());
    }
    let row = |image: &Stored| -> Result<Value> {
        let none = || "<none>".to_owned();
        let created = image.config.created().clone().unwrap_or_default();
        Ok(json!({
            "Repository": image.name.as_ref().map_or_else(none, Name::short_repository),
            "Tag": image.name.as_ref().and_then(Name::tag).map_or_else(none, str::to_owned),
            "ID": id(image),
            "CreatedSince": date::read(&created).map(super::age).unwrap_or_default(),
            "CreatedAt": created,
            "Size": super::size(images.size(image)?),
            "Digest": image.manifest.digest().to_string(),
        }))
    };
    let titles = json!({
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "ID": "IMAGE ID",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Digest": "DIGEST",
    });
    let columns = ["Repository", "Tag", "ID", "CreatedSince", "Size"];
    let rows = all.iter().map(row).collect::<Result<Vec<_>>>()?;
    super::print(&Format::list(args.format.as_ref(), &columns, &titles, &rows)?)
}
