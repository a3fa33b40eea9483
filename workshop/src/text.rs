//! Text for people at a terminal, and the tools that they have there.

use std::path::Path;

/// The paragraphs of a text, each on a line of its own, however it is written here.
pub(crate) fn paragraphs(text: &str) -> Vec<String> {
    let words = |paragraph: &str| paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split("\n\n").map(words).collect()
}

/// Breaks lines between words; a terminal would do so in the middle of one.
pub(crate) fn wrapped(text: &str) -> String {
    const WIDTH: usize = 90;
    let mut lines = Vec::new();
    for paragraph in paragraphs(text) {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            if !line.is_empty() && line.len() + word.len() >= WIDTH {
                lines.push(std::mem::take(&mut line));
            }
            let space = if line.is_empty() { "" } else { " " };
            line += &format!("{space}{word}");
        }
        lines.push(line);
    }
    lines.join("\n")
}

/// PATH, and the directories of root's tools, which a plain user's may lack.
pub(crate) fn search_path() -> String {
    let callers = std::env::var("PATH").unwrap_or_default();
    format!("{callers}:/usr/sbin:/sbin")
}

/// Whether a tool is in one of the directories of `path`.
pub(crate) fn is_on(path: &str, tool: &str) -> bool {
    path.split(':').any(|directory| Path::new(directory).join(tool).exists())
}
