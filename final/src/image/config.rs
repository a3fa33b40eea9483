//! How an image wants to be run (image-spec, config.md), with docker's rules.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use oci_spec::image::Config;

use crate::network::Exposed;
use crate::verbs::kill::parse_signal;

/// The program and its arguments: the image's entry point, and behind it what was asked for, or else
/// what the image has for that. With another entry point the image's arguments make no sense.
#[must_use]
pub fn command(config: &Config, entrypoint: Option<&[String]>, asked: &[String]) -> Vec<String> {
    let own = config.entrypoint().as_deref().unwrap_or_default();
    let own_arguments = config.cmd().as_deref().filter(|_| entrypoint.is_none());
    let arguments = if asked.is_empty() { own_arguments.unwrap_or_default() } else { asked };
    [entrypoint.unwrap_or(own), arguments].concat()
}

/// The working directory, absolute.
pub fn workdir(config: &Config) -> Result<PathBuf> {
    let path = config.working_dir().as_deref().unwrap_or_default();
    ensure!(
        !Path::new(path).components().any(|part| part == Component::ParentDir),
        "the image's working directory {path:?} contains .."
    );
    Ok(Path::new("/").join(path))
}

/// One instruction of a Dockerfile, as `import --change` takes it.
pub fn change(config: &mut Config, instruction: &str) -> Result<()> {
    let (name, rest) =
        instruction.trim().split_once(char::is_whitespace).unwrap_or((instruction, ""));
    let rest = rest.trim();
    ensure!(!rest.is_empty(), "{instruction:?} has no argument");
    let list = || rest.split_whitespace().map(str::to_owned);
    match name.to_ascii_uppercase().as_str() {
        "CMD" => _ = config.set_cmd(Some(words(rest)?)),
        "ENTRYPOINT" => _ = config.set_entrypoint(Some(words(rest)?)),
        "ENV" => {
            let (name, value) = pair(rest)?;
            let mut env = config.env().clone().unwrap_or_default();
            env.retain(|other| other.split_once('=').is_none_or(|(other, _)| other != name));
            env.push(format!("{name}={value}"));
            config.set_env(Some(env));
        }
        "LABEL" => {
            let (name, value) = pair(rest)?;
            config.labels_mut().get_or_insert_default().insert(name, value);
        }
        "USER" => _ = config.set_user(Some(rest.to_owned())),
        "WORKDIR" => {
            config.set_working_dir(Some(rest.to_owned()));
            workdir(config)?;
        }
        "STOPSIGNAL" => {
            parse_signal(rest)?;
            config.set_stop_signal(Some(rest.to_owned()));
        }
        "EXPOSE" => {
            let ports =
                list().map(|port| if port.contains('/') { port } else { format!("{port}/tcp") });
            let mut all = config.exposed_ports().clone().unwrap_or_default();
            all.extend(ports);
            all.iter().try_for_each(|port| Exposed::parse(port).map(drop))?;
            config.set_exposed_ports(Some(all));
        }
        other => bail!(
            "{other} is not known here: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER or WORKDIR"
        ),
    }
    Ok(())
}

/// A list as JSON has it, or a line for a shell.
fn words(text: &str) -> Result<Vec<String>> {
    if text.starts_with('[') {
        return serde_json::from_str(text)
            .map_err(|error| anyhow!("{text} is no list of words: {error}"));
    }
    Ok(vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

/// `NAME=VALUE`, or docker's old `NAME VALUE`.
fn pair(text: &str) -> Result<(String, String)> {
    let (name, value) = text
        .split_once(['=', ' '])
        .filter(|(name, _)| !name.is_empty())
        .with_context(|| format!("{text:?} is not NAME=VALUE"))?;
    let value = value.trim();
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Ok((name.to_owned(), quoted.unwrap_or(value).to_owned()))
}

#[cfg(test)]
mod tests {
    use oci_spec::image::Config;

    use super::{change, command, workdir};

    fn config(changes: &[&str]) -> Config {
        let mut config = Config::default();
        for instruction in changes {
            change(&mut config, instruction).unwrap();
        }
        config
    }

    fn texts(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn the_program_is_dockers_choice() {
        let both = config(&["ENTRYPOINT [\"/e\"]", "CMD [\"a\", \"b c\"]"]);
        let only_cmd = config(&["CMD [\"a\"]"]);
        for (config, entrypoint, asked, expected) in [
            (&both, None, &[][..], &["/e", "a", "b c"][..]),
            (&both, None, &["x"], &["/e", "x"]),
            (&both, Some(&["/o"][..]), &[], &["/o"]),
            (&both, Some(&["/o"]), &["x"], &["/o", "x"]),
            (&both, Some(&[]), &["x"], &["x"]),
            (&only_cmd, None, &[], &["a"]),
            (&only_cmd, None, &["x", "y"], &["x", "y"]),
            (&only_cmd, Some(&["/o"]), &[], &["/o"]),
            (&Config::default(), None, &[], &[]),
        ] {
            let entrypoint = entrypoint.map(texts);
            assert_eq!(command(config, entrypoint.as_deref(), &texts(asked)), texts(expected));
        }
    }

    #[test]
    fn changes_are_a_dockerfiles() {
        let config = config(&[
            "CMD nginx -g 'daemon off;'",
            "env A=1",
            "ENV B \"2 3\"",
            "ENV A=4",
            "EXPOSE 80 53/udp",
            "WORKDIR srv",
            "STOPSIGNAL SIGQUIT",
            "USER www-data:www-data",
        ]);
        assert_eq!(config.cmd().as_deref().unwrap(), ["/bin/sh", "-c", "nginx -g 'daemon off;'"]);
        assert_eq!(config.env().as_deref().unwrap(), ["B=2 3", "A=4"]);
        assert_eq!(config.exposed_ports().as_deref().unwrap(), ["80/tcp", "53/udp"]);
        assert_eq!(workdir(&config).unwrap(), std::path::Path::new("/srv"));
        for wrong in [
            "",
            "CMD",
            "CMD [\"a\"",
            "RUN a",
            "EXPOSE x",
            "EXPOSE 0",
            "EXPOSE 80/x",
            "ENV =1",
            "ENV A",
            "WORKDIR ../a",
            "STOPSIGNAL SIGMOON",
            "VOLUME /x",
        ] {
            assert!(change(&mut Config::default(), wrong).is_err(), "{wrong}");
        }
    }
}
