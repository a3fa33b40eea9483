//! An image of one layer: the archive of a root file system.

use std::io::Read;

use anyhow::{Context as _, Result};
use oci_spec::image::{
    Arch, Config, History, HistoryBuilder, ImageConfiguration, ImageConfigurationBuilder,
    MediaType, Os, RootFsBuilder,
};

use super::date;
use super::draft::Draft;
use super::images::{Images, digest_of};
use super::name::Name;

/// Makes an image of a tar archive; returns its id. `from_where` is for its history.
pub fn import(
    images: &Images<'_>,
    from: &mut impl Read,
    from_where: &str,
    config: Config,
    name: Option<Name>,
) -> Result<String> {
    let mut draft = Draft::new(images)?;
    let (layer, _) = draft.write(from)?;
    let diff_id = draft.unpack(&layer).context("cannot import it")?;
    let config = configuration(config, &diff_id, format!("Imported from {from_where}"))?;
    let config = draft.document(MediaType::ImageConfig, &config)?;
    let complete = draft.build(digest_of(&config)?, &[layer])?;
    let id = complete.id.clone();
    draft.commit(&[(complete, name.into_iter().collect())])?;
    Ok(id)
}

fn configuration(config: Config, diff_id: &str, comment: String) -> Result<ImageConfiguration> {
    let now = date::now();
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(vec![format!("sha256:{diff_id}")]);
    let history: History =
        HistoryBuilder::default().created(now.clone()).comment(comment).build()?;
    Ok(ImageConfigurationBuilder::default()
        .created(now)
        .architecture(Arch::default())
        .os(Os::Linux)
        .config(config)
        .rootfs(rootfs.build()?)
        .history(vec![history])
        .build()?)
}
