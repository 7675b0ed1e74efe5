//! Commands that the reader may type next, with the options that were given to this one: without them they would speak of another store
//! or of another pipeline.

use std::env;

/// A command that looks at the same store.
pub fn on_store(command: &str) -> String {
    with(command, &["--store"])
}

/// A command that reads the same pipeline, with the same changes to it, and looks at the same store.
pub fn on_pipeline(command: &str) -> String {
    with(command, &["--set", "--store"])
}

/// The command line as it was given.
pub fn whole() -> String {
    std::iter::once("palinode".to_owned()).chain(given().map(|arg| quoted(&arg))).collect::<Vec<_>>().join(" ")
}

fn with(command: &str, options: &[&str]) -> String {
    let args: Vec<String> = given().collect();
    let options = options.iter().flat_map(|option| values(&args, option).map(move |value| (option, value)));
    options.fold(command.to_owned(), |text, (option, value)| format!("{text} {option} {}", quoted(&value)))
}

fn given() -> impl Iterator<Item = String> {
    env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned())
}

/// The values of an option, in any of its spellings.
fn values<'a>(args: &'a [String], option: &'a str) -> impl Iterator<Item = String> + 'a {
    let options = args.iter().take_while(|arg| *arg != "--");
    options.enumerate().filter_map(move |(at, arg)| {
        let rest = arg.strip_prefix(option)?;
        if rest.is_empty() { args.get(at + 1).cloned() } else { rest.strip_prefix('=').map(str::to_owned) }
    })
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |char: char| char.is_alphanumeric() || "-_./=:,+@%~".contains(char);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_each_spelling() {
        let args = ["run", "p.yaml", "--set", "a=1", "--store=x y", "--set=b=[2]", "--", "--set", "c=3"];
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        assert_eq!(values(&args, "--set").collect::<Vec<_>>(), ["a=1", "b=[2]"]);
        assert_eq!(values(&args, "--store").collect::<Vec<_>>(), ["x y"]);
        assert_eq!(quoted("x y"), "'x y'");
        assert_eq!(quoted("b=[2]"), "'b=[2]'");
    }
}
