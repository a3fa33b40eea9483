//! `--format`: what is to be shown of each thing, in docker's words. These are templates of Go
//! (text/template), of which we know what people write by hand: fields, `json` and `range`.

use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};
use serde_json::Value;

/// How to show it.
#[derive(Debug, Clone)]
pub enum Format {
    /// A list in columns: those of the template, or the usual ones.
    Table(Option<Template>),
    /// JSON in one line.
    Json,
    /// A line for each thing.
    Template(Template),
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "json" {
            return Ok(Self::Json);
        }
        // As docker: a shell's quotes leave these two letters as they are.
        let text = text.replace(r"\t", "\t").replace(r"\n", "\n");
        Ok(match text.strip_prefix("table") {
            Some("") => Self::Table(None),
            Some(columns) => Self::Table(Some(columns.trim_start().parse()?)),
            None => Self::Template(text.parse()?),
        })
    }
}

impl Format {
    /// For what is not a list.
    pub fn without_table(text: &str) -> Result<Self> {
        ensure!(!text.starts_with("table"), "a table is for lists: {FORMATS}");
        text.parse()
    }

    /// A list. `titles` has each field that a row has, with what stands above it in a table;
    /// `columns` are the usual ones.
    pub fn list(
        format: Option<&Self>,
        columns: &[&str],
        titles: &Value,
        rows: &[Value],
    ) -> Result<String> {
        let usual = || Template::columns(columns);
        let template = match format {
            Some(Self::Json) => return Ok(rows.iter().map(|row| row.to_string() + "\n").collect()),
            Some(Self::Template(template)) => {
                template.fill(titles)?; // a wrong field is an error of an empty list, too
                return rows.iter().map(|row| Ok(template.fill(row)? + "\n")).collect();
            }
            Some(Self::Table(template)) => template.clone().unwrap_or_else(usual),
            None => usual(),
        };
        let cells = |row| {
            let line = template.fill(row)?;
            Ok(line.split('\t').map(str::to_owned).collect())
        };
        let rows: Vec<Vec<String>> =
            [titles].into_iter().chain(rows).map(cells).collect::<Result<_>>()?;
        Ok(table(&rows))
    }

    /// Whether it shows this field by name.
    #[must_use]
    pub fn shows(&self, field: &str) -> bool {
        match self {
            Self::Table(Some(template)) | Self::Template(template) => template.shows(field),
            Self::Table(None) | Self::Json => false,
        }
    }

    /// One thing, or by default the usual template's text.
    pub fn show(format: Option<&Self>, usual: &str, thing: &Value) -> Result<String> {
        Ok(match format {
            Some(Self::Json) => format!("{thing}\n"),
            Some(Self::Template(template)) => template.fill(thing)? + "\n",
            None | Some(Self::Table(_)) => usual.parse::<Template>()?.fill(thing)?,
        })
    }

    /// All that is known about some things.
    pub fn inspect(format: Option<&Self>, things: &[Value]) -> Result<String> {
        Ok(match format {
            Some(Self::Template(template)) => {
                let lines = things.iter().map(|thing| Ok(template.fill(thing)? + "\n"));
                lines.collect::<Result<_>>()?
            }
            Some(Self::Json) => serde_json::to_string(things)? + "\n",
            None | Some(Self::Table(_)) => serde_json::to_string_pretty(things)? + "\n",
        })
    }
}

const FORMATS: &str =
    "it is json, or a template of {{.FIELD.FIELD}}, {{json .FIELD}} and {{range .FIELD}}...{{end}}";

/// A text with places to be filled.
#[derive(Debug, Clone)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Field(Vec<String>),
    Json(Vec<String>),
    Range(Vec<String>, Template),
}

impl FromStr for Template {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let template = Self::read(&mut &*text, false)?;
        // `--format jsno` would show nothing but that.
        ensure!(template.0.iter().any(|part| !matches!(part, Part::Text(_))), "{FORMATS}");
        Ok(template)
    }
}

impl Template {
    /// Fields with tabs between them.
    fn columns(names: &[&str]) -> Self {
        let tab = || Part::Text("\t".into());
        let fields = names.iter().flat_map(|&name| [tab(), Part::Field(vec![name.to_owned()])]);
        Self(fields.skip(1).collect())
    }

    /// Takes the text up to its end, or up to the `{{end}}` of the range that it is in.
    fn read(text: &mut &str, in_range: bool) -> Result<Self> {
        let mut parts = Vec::new();
        while let Some((before, rest)) = text.split_once("{{") {
            parts.push(Part::Text(before.to_owned()));
            let (action, rest) = rest.split_once("}}").context("a {{ without its }}")?;
            *text = rest;
            parts.push(match action.split_whitespace().collect::<Vec<_>>()[..] {
                ["end"] if in_range => return Ok(Self(parts)),
                ["json", field] => Part::Json(path(field)?),
                ["range", field] => Part::Range(path(field)?, Self::read(text, true)?),
                [field] => Part::Field(path(field)?),
                _ => bail!("{{{{{action}}}}} is not known here: {FORMATS}"),
            });
        }
        ensure!(!in_range, "a {{{{range}}}} without its {{{{end}}}}");
        parts.push(Part::Text(text.to_owned()));
        Ok(Self(parts))
    }

    fn shows(&self, field: &str) -> bool {
        let is_it = |path: &[String]| path.first().is_some_and(|name| name == field);
        self.0.iter().any(|part| match part {
            Part::Text(_) => false,
            Part::Field(path) | Part::Json(path) => is_it(path),
            Part::Range(path, inner) => is_it(path) || inner.shows(field),
        })
    }

    /// The text, with the thing's values in it.
    pub fn fill(&self, thing: &Value) -> Result<String> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(literal) => text += literal,
                Part::Json(path) => text += &find(thing, path)?.to_string(),
                Part::Field(path) => text += &shown(find(thing, path)?),
                Part::Range(path, body) => {
                    let each = match find(thing, path)? {
                        Value::Array(list) => list.iter().collect(),
                        Value::Object(fields) => fields.values().collect(),
                        Value::Null => Vec::new(),
                        other => bail!(".{} is {other}, and no list", path.join(".")),
                    };
                    for thing in each {
                        text += &body.fill(thing)?;
                    }
                }
            }
        }
        Ok(text)
    }
}

/// `.A.B` as its names; `.` is the whole.
fn path(text: &str) -> Result<Vec<String>> {
    let is_name = |name: &str| name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    let names = text.strip_prefix('.').filter(|names| names.split('.').all(is_name));
    let names = names.with_context(|| format!("{{{{{text}}}}} is not known here: {FORMATS}"))?;
    Ok(names.split('.').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

fn find<'v>(thing: &'v Value, path: &[String]) -> Result<&'v Value> {
    path.iter().try_fold(thing, |value, name| {
        value.get(name).with_context(|| {
            let fields = value.as_object().into_iter().flat_map(|fields| fields.keys());
            let fields: Vec<_> = fields.map(|field| format!(".{field}")).collect();
            let there = if fields.is_empty() { "none".to_owned() } else { fields.join(" ") };
            format!("there is no field .{name} (there is {there})")
        })
    })
}

/// As Go prints it; but what others have written cannot command the terminal.
fn shown(value: &Value) -> String {
    let escape =
        |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => text.chars().map(escape).collect(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}:{}", shown(value)));
            format!("map[{}]", fields.collect::<Vec<_>>().join(" "))
        }
    }
}

/// Rows with a title, in docker's columns.
pub fn table(rows: &[impl AsRef<[String]>]) -> String {
    let rows = || rows.iter().map(AsRef::<[String]>::as_ref);
    let columns = rows().map(<[_]>::len).max().unwrap_or_default();
    let width =
        |column: usize| rows().filter_map(|row| Some(row.get(column)?.chars().count())).max();
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
    let mut table = String::new();
    for row in rows() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   "));
        table += cells.collect::<String>().trim_end();
        table.push('\n');
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Format, Template};

    fn filled(template: &str) -> String {
        let thing = json!({
            "Name": "web", "State": { "Running": true, "Pid": 7, "Error": null }, "Args": ["a", "b c"],
            "Networks": { "blue": { "IPAddress": "10.0.0.2" }, "x-y": { "IPAddress": "10.0.1.2" } },
            "Label": "\x1b[2J",
        });
        match template.parse::<Template>() {
            Ok(template) => template.fill(&thing).unwrap_or_else(|error| format!("{error:#}")),
            Err(error) => format!("refused: {error:#}"),
        }
    }

    #[test]
    fn templates_are_gos() {
        for (template, text) in [
            ("{{.Name}}", "web"),
            ("/{{ .Name }}: {{.State.Pid}},{{.State.Running}}", "/web: 7,true"),
            ("{{json .State}} {{json .Name}}", r#"{"Error":null,"Pid":7,"Running":true} "web""#),
            ("{{range .Networks}}{{.IPAddress}} {{end}}.", "10.0.0.2 10.0.1.2 ."),
            ("{{.Networks.x-y.IPAddress}}", "10.0.1.2"),
            ("{{range .Args}}<{{.}}>{{end}}", "<a><b c>"),
            ("{{.State}} {{.Args}}", "map[Error:<no value> Pid:7 Running:true] [a b c]"),
            ("{{.Label}}", r"\u{1b}[2J"),
            ("{{.State.No}}", "there is no field .No (there is .Error .Pid .Running)"),
            ("{{.Name.No}}", "there is no field .No (there is none)"),
            ("{{range .Name}}{{end}}", ".Name is \"web\", and no list"),
        ] {
            assert_eq!(filled(template), text, "{template}");
        }
        for (template, named) in [
            ("{{if .Name}}x{{end}}", "{{if .Name}} is not known here"),
            ("{{.Name | upper}}", "{{.Name | upper}}"),
            ("{{index .Args 0}}", "{{index .Args 0}}"),
            ("{{$x}}", "{{$x}}"),
            ("{{\"a\"}}", "{{\"a\"}}"),
            ("{{end}}", "{{end}}"),
            ("{{range .Args}}", "without its {{end}}"),
            ("{{.Name", "without its }}"),
            ("jsno", "it is json, or a template"),
        ] {
            assert!(filled(template).starts_with("refused: "), "{template}");
            assert!(filled(template).contains(named), "{template}: {}", filled(template));
        }
    }

    #[test]
    fn lists_are_dockers() {
        let titles = json!({ "ID": "THE ID", "Name": "NAME" });
        let rows = [json!({ "ID": "1", "Name": "long name" }), json!({ "ID": "2", "Name": "b" })];
        let list = |format: &str| {
            let format: Option<Format> = (!format.is_empty()).then(|| format.parse().unwrap());
            Format::list(format.as_ref(), &["ID", "Name"], &titles, &rows).unwrap()
        };
        assert_eq!(list(""), "THE ID   NAME\n1        long name\n2        b\n");
        assert_eq!(list("table"), list(""));
        assert_eq!(
            list(r"table {{.Name}}\t{{.ID}}!"),
            "NAME        THE ID!\nlong name   1!\nb           2!\n"
        );
        assert_eq!(list(r"{{.Name}}\t{{.ID}}"), "long name\t1\nb\t2\n");
        assert_eq!(
            list("json"),
            "{\"ID\":\"1\",\"Name\":\"long name\"}\n{\"ID\":\"2\",\"Name\":\"b\"}\n"
        );
        let wrong: Format = "{{.No}}".parse().unwrap();
        assert!(Format::list(Some(&wrong), &["ID"], &titles, &[]).is_err());
    }
}
