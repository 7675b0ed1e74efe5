//! Mistakes in a pipeline, each with its place; how they are drawn is the command line's business.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use palinode_error::{DataPlace, Error, ErrorKind, Fetch, Hint};

/// What sort of text a place points into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file: places have lines and columns.
    File,
    /// A `path=value` that changes a file.
    Override,
    /// A value that was given in code: its name says which one, and it has no lines.
    Code,
}

/// A text that places point into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What it is.
    pub origin: Origin,
    /// The name to show: a path; [`Source::OVERRIDE`]; or what a value is for.
    pub name: String,
    /// The text.
    pub text: String,
}

impl Source {
    /// The name of every override; who takes them from somewhere can say from where.
    pub const OVERRIDE: &str = "override";

    /// The text of a file. A byte-order mark at its beginning, as editors on Windows write it, is left out.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Arc::new(Self { origin: Origin::File, name: name.into(), text })
    }

    /// The text of an override.
    pub fn of_override(text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { origin: Origin::Override, name: Self::OVERRIDE.to_owned(), text: text.into() })
    }

    /// A value that was given in code.
    pub fn of_code(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { origin: Origin::Code, name: name.into(), text: text.into() })
    }

    /// Reads a pipeline file.
    ///
    /// # Errors
    /// When it cannot be read as text: a mistake in the pipeline where it is a file, but not UTF-8.
    pub fn read(path: &Path) -> Result<Arc<Self>, Error> {
        let text = read_text(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge => {
                Error::new(ErrorKind::Pipeline, format!("{}: {error}", path.display()))
            }
            _ => Error::io(ErrorKind::Usage, "read", path, error),
        })?;
        Ok(Self::new(path.display().to_string(), text))
    }

    /// The span of `len` bytes from byte `offset`. What would stand behind the end of the last line stands at its end.
    pub fn span(&self, offset: usize, len: usize) -> Span {
        let last = self.text.strip_suffix('\n').unwrap_or(&self.text).len();
        let offset = self.text.floor_char_boundary(offset.min(last));
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let end = self.text.floor_char_boundary(offset + len);
        Span {
            offset,
            len: end - offset,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// A pipeline file is written by hand, or has a line for each of some thousand stages: some MiB at most.
const LARGEST: u64 = 16 << 20;

/// The text of a file of a pipeline.
///
/// # Errors
/// Of kind [`io::ErrorKind::InvalidData`] with the place of the first byte that is not UTF-8, and of kind
/// [`io::ErrorKind::FileTooLarge`] for what is no file to be read whole, such as a device.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    // A device has no length that says anything: reading stops where a file would be too large.
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        let message = format!("it is larger than {} MiB, which no pipeline file is", LARGEST >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (before, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let good = String::from_utf8_lossy(&bytes[..before]);
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let what = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "this looks like UTF-16",
            _ => "this is not UTF-8",
        };
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line}, column {column}: {what}: save the file as UTF-8"),
        )
    })
}

/// A stretch of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// [`ErrorKind::Pipeline`], or [`ErrorKind::Input`] when a file outside is at fault.
    pub kind: ErrorKind,
    /// What is wrong, as a lowercase fragment.
    pub message: String,
    /// A few words to write at the span.
    pub label: String,
    /// Where.
    pub source: Arc<Source>,
    /// Where exactly.
    pub span: Span,
    /// What would have been right.
    pub expected: Option<String>,
    /// What the reader can do about it.
    pub hint: Option<Hint>,
    /// The place in a data file that it concerns.
    pub at: Option<Box<DataPlace>>,
    /// Whether nothing is wrong but that a file is not here.
    pub absent: bool,
    /// What to fetch for that file to be here.
    pub fetch: Option<Box<Fetch>>,
}

impl Diagnostic {
    /// A mistake in the pipeline file itself.
    pub fn new(source: &Arc<Source>, span: Span, message: impl Into<String>) -> Self {
        Self {
            kind: ErrorKind::Pipeline,
            message: message.into(),
            label: "here".to_owned(),
            source: Arc::clone(source),
            span,
            expected: None,
            hint: None,
            at: None,
            absent: false,
            fetch: None,
        }
    }

    /// Sets the words at the span.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets what would have been right.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Sets what the reader can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into().map(Hint::Say);
        self
    }
}

impl Diagnostic {
    /// Where it is, in a word: `file:line:column`, or the name of a value that was given in code.
    pub fn place(&self) -> String {
        match self.source.origin {
            Origin::Code => self.source.name.clone(),
            Origin::File | Origin::Override => {
                format!("{}:{}:{}", self.source.name, self.span.line, self.span.column)
            }
        }
    }

    /// In one line: its place and its message.
    pub fn line(&self) -> String {
        format!("{}: {}", self.place(), self.short_message())
    }

    /// The message; where it repeats a long text of the file, that is cut.
    pub fn short_message(&self) -> String {
        shortened(&self.message)
    }

    /// The line of the source that it is in, cut to `width` characters around what is marked.
    pub fn excerpt(&self, width: usize) -> Excerpt {
        let span = self.span;
        let full: Vec<char> = self.source.text.lines().nth(span.line - 1).unwrap_or_default().chars().collect();
        let column = (span.column - 1).min(full.len());
        let marked = self.source.text.get(span.offset..span.offset + span.len).unwrap_or_default();
        let marked = marked.lines().next().unwrap_or_default().chars().count().min(full.len() - column);
        // The words under the mark may begin at its middle.
        let needed = column + marked.max(marked / 2 + 5 + self.label.chars().count());
        let start = if needed <= width { 0 } else { needed.saturating_sub(width - 1).min(column) };
        let end = full.len().min(start + width - usize::from(start > 0));
        let cut = |yes: bool| if yes { "…" } else { "" };
        let shown: String = full[start..end].iter().collect();
        Excerpt {
            text: format!("{}{shown}{}", cut(start > 0), cut(end < full.len())),
            column: column - start + usize::from(start > 0),
            marked: (column + marked).min(end).max(column) - column,
        }
    }
}

/// A part of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The part; what was cut off is an ellipsis.
    pub text: String,
    /// Where the mark begins in it, in characters counted from 0.
    pub column: usize,
    /// The characters that are marked.
    pub marked: usize,
}

/// A message that repeats a text of thousands of characters hides what it says.
fn shortened(message: &str) -> String {
    const MOST: usize = 800;
    const END: usize = 200;
    let length = message.chars().count();
    if length <= MOST {
        return message.to_owned();
    }
    let (begin, end) = (message.chars().take(MOST - END), message.chars().skip(length - END));
    begin.chain(" … ".chars()).chain(end).collect()
}

/// The longest line of a file that is shown in plain text.
const WIDTH: usize = 160;

impl fmt::Display for Diagnostic {
    /// The plain form: place and message, the source line with carets, and what was expected.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.line())?;
        let Excerpt { text, column, marked } = self.excerpt(WIDTH);
        writeln!(f, "  | {text}")?;
        writeln!(f, "  | {}{} {}", " ".repeat(column), "^".repeat(marked.max(1)), self.label)?;
        if let Some(expected) = &self.expected {
            writeln!(f, "  = expected {expected}")?;
        }
        if let Some(at) = &self.at {
            writeln!(f, "  = see {at}")?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "  = hint: {hint}")?;
        }
        Ok(())
    }
}

/// All mistakes of a pipeline, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// The kind of them all: mistakes in the file itself weigh more than those in the files it names.
    pub fn kind(&self) -> ErrorKind {
        let input = !self.0.is_empty() && self.0.iter().all(|mistake| mistake.kind == ErrorKind::Input);
        if input { ErrorKind::Input } else { ErrorKind::Pipeline }
    }

    /// Adds a mistake that is not known yet.
    pub fn add(&mut self, diagnostic: Diagnostic) {
        // Instances of one stage make the same mistake.
        if !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    /// Fails if there is any mistake, with all of them in order; otherwise those that are none but for files that are not
    /// here.
    pub fn check(self, file: &Source) -> Result<Self, Self> {
        let sorted = self.sorted(file);
        if sorted.0.iter().all(|mistake| mistake.absent) { Ok(sorted) } else { Err(sorted) }
    }

    /// In the order of the file, then of the files that it includes, then of overrides.
    pub fn sorted(mut self, file: &Source) -> Self {
        self.0.sort_by_key(|mistake| match (mistake.source.origin, mistake.source.name.as_str()) {
            // Overrides come each by itself.
            (Origin::Override, _) => (2, mistake.source.text.clone(), mistake.span),
            // What was given in code keeps the order in which it was checked: that of the code.
            (Origin::Code, _) => (0, String::new(), Span::default()),
            (Origin::File, name) => (i32::from(name != file.name), name.to_owned(), mistake.span),
        });
        self
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            mistake.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
