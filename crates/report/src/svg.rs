//! SVG as text. Colours are `currentColor`, so that a drawing takes the page's ink, light or dark.

use std::fmt::{Display, Write as _};

/// Size of text in a drawing, in pixels.
pub const TEXT: f64 = 11.0;

/// How text stands at its place.
#[derive(Clone, Copy)]
pub enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// The inside of a drawing.
#[derive(Clone, Debug, Default)]
pub struct Svg(pub String);

impl Svg {
    /// A straight line; `style` is further attributes.
    pub fn line(&mut self, from: (f64, f64), to: (f64, f64), style: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let ends = format!(r#"x1="{}" y1="{}" x2="{}" y2="{}""#, n(x1), n(y1), n(x2), n(y2));
        self.push(&format!(r#"<line {ends} stroke="currentColor" {style}/>"#));
    }

    /// A line through points.
    pub fn path(&mut self, points: &[(f64, f64)], style: &str) {
        self.push(&format!(r#"<path d="{}" fill="none" stroke="currentColor" {style}/>"#, way(points)));
    }

    /// A closed area.
    pub fn area(&mut self, points: &[(f64, f64)], style: &str) {
        self.push(&format!(r#"<path d="{}Z" fill="currentColor" {style}/>"#, way(points)));
    }

    /// A rectangle.
    pub fn rect(&mut self, at: (f64, f64), size: (f64, f64), style: &str) {
        let place = format!(r#"x="{}" y="{}" width="{}" height="{}""#, n(at.0), n(at.1), n(size.0), n(size.1));
        self.push(&format!("<rect {place} {style}/>"));
    }

    /// Text of the usual size.
    pub fn text(&mut self, at: (f64, f64), anchor: Anchor, text: &str, style: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let place = format!(r#"x="{}" y="{}"{anchor}"#, n(at.0), n(at.1));
        self.push(&format!(r#"<text {place} fill="currentColor" {style}>{}</text>"#, escape(text)));
    }

    /// What a pointer that rests on the next shapes says, around them.
    pub fn titled(&mut self, title: &str, inside: impl FnOnce(&mut Self)) {
        self.push(&format!("<g><title>{}</title>", escape(title)));
        inside(self);
        self.0.push_str("</g>");
    }

    /// A group with attributes.
    pub fn group(&mut self, style: &str, inside: impl FnOnce(&mut Self)) {
        self.push(&format!("<g {style}>"));
        inside(self);
        self.0.push_str("</g>");
    }

    /// Anything.
    pub fn push(&mut self, text: &str) {
        // An empty style leaves a blank.
        self.0.push_str(&text.replace(" />", "/>").replace(" >", ">"));
        self.0.push('\n');
    }
}

fn way(points: &[(f64, f64)]) -> String {
    let mut way = String::new();
    for (i, (x, y)) in points.iter().enumerate() {
        let _ = write!(way, "{}{} {}", if i == 0 { "M" } else { "L" }, n(*x), n(*y));
    }
    way
}

/// A coordinate, to a hundredth of a pixel.
pub fn n(value: f64) -> String {
    let text = format!("{:.2}", if value.is_finite() { value } else { 0.0 });
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// Text for markup. Characters that XML cannot hold are left out.
pub fn escape(text: &(impl Display + ?Sized)) -> String {
    let mut out = String::new();
    for char in text.to_string().chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\t' | '\n' => out.push(char),
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => {}
            char => out.push(char),
        }
    }
    out
}

/// About how wide a text is, in pixels, at the usual size.
pub fn width(text: &str) -> f64 {
    let em = |char: char| match char {
        'i' | 'j' | 'l' | '.' | ',' | '\'' | '|' | ' ' | ':' => 0.3,
        'm' | 'w' | 'M' | 'W' | '%' => 0.9,
        'A'..='Z' => 0.7,
        '0'..='9' => 0.64,
        char if char.is_ascii() => 0.56,
        '\u{300}'..='\u{36f}' => 0.0,
        '\u{1100}'.. => 1.0,
        _ => 0.6,
    };
    text.chars().map(em).sum::<f64>() * TEXT
}

/// A text in lines of about so many pixels: cut between parts (` · `), within a part behind a blank, a hyphen or an underscore, and where there is none
/// of these, anywhere.
pub fn lines(text: &str, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in text.split(" · ") {
        match lines.last_mut() {
            Some(last) if width(last) + width(" · ") + width(part) <= room => {
                last.push_str(" · ");
                last.push_str(part);
            }
            _ => broken(part, room, &mut lines),
        }
    }
    lines
}

/// A part that may be longer than a line.
fn broken(part: &str, room: f64, lines: &mut Vec<String>) {
    let mut rest = part;
    while width(rest) > room {
        let mut fits = 0;
        for (at, char) in rest.char_indices() {
            let end = at + char.len_utf8();
            if fits > 0 && width(&rest[..end]) > room {
                break;
            }
            fits = end;
        }
        let end = rest[..fits].rfind([' ', '-', '_']).map_or(fits, |at| at + 1);
        lines.push(rest[..end].trim_end().to_owned());
        rest = rest[end..].trim_start();
    }
    if !rest.is_empty() || lines.is_empty() {
        lines.push(rest.to_owned());
    }
}

/// A text cut to about so many pixels.
pub fn clip(text: &str, room: f64) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for char in text.chars() {
        kept.push(char);
        if width(&kept) + TEXT > room {
            kept.pop();
            break;
        }
    }
    kept.trim_end().to_owned() + "…"
}
