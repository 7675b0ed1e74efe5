//! A figure: panels beside each other, a legend, a caption. On the page the panels flow; in a file they stand in rows.

use crate::look::Look;
use crate::svg::{Anchor, Svg, TEXT, escape, n, width};

/// The usual width of a panel: four stand beside each other on a page.
pub const PANEL: f64 = 238.0;

/// One drawing.
#[derive(Clone, Debug)]
pub struct Panel {
    /// Its width in pixels.
    pub width: f64,
    /// Its height in pixels.
    pub height: f64,
    /// What it shows, for those who cannot see it.
    pub title: String,
    /// The drawing.
    pub body: Svg,
}

/// An entry of a legend.
#[derive(Clone, Debug)]
pub struct Key {
    /// How it is drawn.
    pub look: Look,
    /// What it is.
    pub label: String,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// The stem of its file.
    pub name: String,
    /// What it shows, in a sentence or two.
    pub caption: String,
    /// What the legend's entries are values of.
    pub legend_title: String,
    /// The legend; none where there is nothing to tell apart.
    pub legend: Vec<Key>,
    /// The panels.
    pub panels: Vec<Panel>,
    /// Whether it is shown only to who asks for it.
    pub aside: bool,
}

const GAP: f64 = 16.0;
const STYLE: &str = r##"color="#1b1d21" font-family="Helvetica Neue, Helvetica, Arial, sans-serif""##;

impl Figure {
    /// Every panel as a drawing of its own, for the page.
    pub fn drawings(&self) -> Vec<String> {
        let draw = |panel: &Panel| {
            let (w, h) = (n(panel.width), n(panel.height));
            let class = if panel.width == PANEL { r#" class="panel""# } else { "" };
            let size = format!(r#"viewBox="0 0 {w} {h}" width="{w}" height="{h}" font-size="{TEXT}"{class}"#);
            format!("<svg {size} role=\"img\" aria-label=\"{}\">{}</svg>", escape(&panel.title), panel.body.0)
        };
        self.panels.iter().map(draw).collect()
    }

    /// The legend's entries as small drawings with words, for the page.
    pub fn keys(&self) -> Vec<(String, &str)> {
        let draw = |look| {
            let mut svg = Svg::default();
            swatch(&mut svg, look, (0.0, 6.0));
            let size = r#"viewBox="0 0 26 12" width="26" height="12" aria-hidden="true""#;
            format!("<svg {size}>{}</svg>", svg.0)
        };
        self.legend.iter().map(|key| (draw(key.look), key.label.as_str())).collect()
    }

    /// The whole figure as a file that stands alone, on a white ground.
    pub fn file(&self) -> String {
        let columns = match self.panels.len() {
            0..=3 => self.panels.len().max(1),
            4..=8 => 4,
            _ => 6,
        };
        let (mut x, mut y, mut row, mut wide) = (GAP, GAP, 0.0f64, 0.0f64);
        let mut svg = Svg::default();
        for (i, panel) in self.panels.iter().enumerate() {
            if i > 0 && i % columns == 0 {
                (x, y, row) = (GAP, y + row + GAP, 0.0);
            }
            svg.group(&format!(r#"transform="translate({} {})""#, n(x), n(y)), |svg| svg.0.push_str(&panel.body.0));
            x += panel.width + GAP;
            (row, wide) = (row.max(panel.height), wide.max(x));
        }
        let mut bottom = y + row + GAP;
        if !self.legend.is_empty() {
            let mut x = GAP;
            if !self.legend_title.is_empty() {
                svg.text((x, bottom + 4.0), Anchor::Start, &self.legend_title, r#"font-style="italic""#);
                x += width(&self.legend_title) + GAP;
            }
            for key in &self.legend {
                let room = 32.0 + width(&key.label) + GAP;
                if x > GAP && x + room > wide.max(PANEL) {
                    (x, bottom) = (GAP, bottom + 18.0);
                }
                swatch(&mut svg, key.look, (x, bottom));
                svg.text((x + 32.0, bottom + 4.0), Anchor::Start, &key.label, "");
                x += room;
            }
            bottom += GAP + 4.0;
        }
        let (w, h) = (n(wide.max(PANEL)), n(bottom));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" {STYLE} \
             font-size=\"{TEXT}\">\n<title>{}</title>\n<rect width=\"{w}\" height=\"{h}\" fill=\"#ffffff\"/>\n{}</svg>\n",
            escape(&self.caption),
            svg.0
        )
    }
}

fn swatch(svg: &mut Svg, look: Look, (x, y): (f64, f64)) {
    svg.group(&look.group(), |svg| {
        svg.line((x, y), (x + 26.0, y), &look.line());
        look.mark(svg, (x + 13.0, y));
    });
}
