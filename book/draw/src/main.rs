//! Draws the book's pictures: `pictures/NAME.pik` becomes `pictures/NAME.svg`.
//!
//! ```text
//! cargo run --manifest-path book/draw/Cargo.toml              # draw
//! cargo run --manifest-path book/draw/Cargo.toml -- --check   # fail if a picture is not up to date
//! ```
//!
//! A source is text in the language of <https://pikchr.org>. Its first line is a comment with the
//! picture's title, the comments right below it say what is to be seen; both are for readers who
//! cannot see it. `style.pik` stands before each source and has the colours. They are numbers there,
//! and CSS variables in the SVG (`pictures.css`), so that a picture follows the theme of the page.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use pikchr::{Pikchr, PikchrFlags};

/// What `style.pik` says by the numbers 1, 2, 3 and so on.
const COLOURS: [&str; 8] =
    ["paper", "host", "container", "kernel", "wire", "danger", "new", "quiet"];

fn main() -> Result<()> {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => bail!("usage: draw [--check]"),
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../pictures");
    let style = read(&folder.join("style.pik"))?;
    let mut old = Vec::new();
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "pik")
            || path.ends_with("style.pik")
        {
            continue;
        }
        let svg = draw(&style, &read(&path)?)
            .with_context(|| format!("cannot draw {}", path.display()))?;
        let target = path.with_extension("svg");
        if fs::read_to_string(&target).ok().as_deref() == Some(&svg) {
            continue;
        }
        if !check {
            fs::write(&target, svg)
                .with_context(|| format!("cannot write {}", target.display()))?;
        }
        old.push(target.file_name().unwrap_or_default().display().to_string());
    }
    ensure!(!check || old.is_empty(), "not up to date: {}; draw them again", old.join(", "));
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The SVG of a picture: an element to be included in a page, without an empty line.
fn draw(style: &str, source: &str) -> Result<String> {
    let mut comments = source.lines().map_while(|line| line.strip_prefix('#')).map(str::trim);
    let title = comments.next().context("its first line is not a comment with its title")?;
    let description = comments.collect::<Vec<_>>().join(" ");
    ensure!(!description.is_empty(), "no comment below the title says what is to be seen");

    let flags = *PikchrFlags::default().generate_plain_errors();
    let drawn = Pikchr::render(&format!("{style}\n{source}"), None, flags)
        .map_err(|error| anyhow!(error))?;
    // Everything before the first element is replaced by a head of our own.
    let (_, body) = drawn.rendered().split_once('>').context("no SVG came out")?;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"picture\" role=\"img\" \
         width=\"{width}\" viewBox=\"0 0 {width} {height}\">\n<title>{}</title>\n<desc>{}</desc>{body}",
        escape(title),
        escape(&description),
        width = drawn.width(),
        height = drawn.height(),
    );
    svg = svg.replace("rgb(0,0,0)", "currentColor");
    for (index, name) in COLOURS.iter().enumerate() {
        svg = svg.replace(&format!("rgb(0,0,{})", index + 1), &format!("var(--{name})"));
    }
    ensure!(!svg.contains("rgb("), "it has a colour that is not from style.pik");
    Ok(svg)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
