//! What can be drawn where the output goes: colours, and how wide.

use std::io::{self, IsTerminal};

use terminal_size::{Height, Width, terminal_size_of};

/// Width of text that goes to a file or a pipe.
const WIDTH: usize = 100;

/// How to draw on one output.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether colours are wanted.
    pub color: bool,
    /// Whether a person looks at it.
    pub terminal: bool,
    /// Columns.
    pub width: usize,
}

impl Style {
    /// For results.
    pub fn stdout() -> Self {
        Self::of(io::stdout().is_terminal(), columns(terminal_size_of(io::stdout())), &variable)
    }

    /// For progress and errors.
    pub fn stderr() -> Self {
        Self::of(io::stderr().is_terminal(), columns(terminal_size_of(io::stderr())), &variable)
    }

    fn of(terminal: bool, columns: Option<usize>, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let terminal = terminal && variable("TERM").as_deref() != Some("dumb");
        let color = terminal && variable("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { color, terminal, width: columns.unwrap_or(WIDTH).max(40) }
    }

    /// Width for running text: long lines are hard to read.
    pub fn prose(&self) -> usize {
        self.width.min(WIDTH)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Titles and what matters.
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// What went well.
    pub fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    /// What went wrong.
    pub fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    /// What needs attention.
    pub fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Names to type.
    pub fn cyan(&self, text: &str) -> String {
        self.paint("36", text)
    }

    /// A line below a table: wrapped on a terminal, and else one line, as rows are.
    pub fn below(&self, text: &str) -> String {
        let wrapped = if self.terminal { self.wrap(text, 0) } else { text.to_owned() };
        self.dim(wrapped.trim_end()) + "\n"
    }

    /// Running text, wrapped, with each line indented by `indent` columns; paragraphs stay apart.
    pub fn wrap(&self, text: &str, indent: usize) -> String {
        let space = " ".repeat(indent);
        let width = self.prose().saturating_sub(indent).max(20);
        let wrapped = text.lines().flat_map(|line| textwrap::wrap(line, width));
        wrapped.map(|line| format!("{space}{line}").trim_end().to_owned() + "\n").collect()
    }
}

fn columns(size: Option<(Width, Height)>) -> Option<usize> {
    size.map(|(Width(width), _)| width.into())
}

fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let check = |terminal: bool, name: &str, value: &str, expect: (bool, bool)| {
            let style = Style::of(terminal, Some(80), &|asked| (asked == name).then(|| value.to_owned()));
            assert_eq!((style.terminal, style.color), expect, "{terminal} {name}={value}");
        };
        check(true, "TERM", "xterm", (true, true));
        check(true, "NO_COLOR", "1", (true, false));
        check(true, "NO_COLOR", "", (true, true));
        check(true, "TERM", "dumb", (false, false));
        check(false, "TERM", "xterm", (false, false));
    }

    #[test]
    fn paragraphs_are_wrapped_and_indented() {
        let style = Style { color: false, terminal: false, width: 40 };
        let text = "a text that is longer than forty columns and has to go on\n\nand a second paragraph";
        insta::assert_snapshot!(style.wrap(text, 2));
    }
}
