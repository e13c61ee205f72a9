//! From Markdown, as the documentation is written in, to what `man` reads.

use clap_mangen::roff::{Inline, Roff, bold, italic, line_break, roman};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// The text below its title. Links become their text, and each row of a table a paragraph with its first cell as its head.
pub(crate) fn to_roff(markdown: &str) -> Roff {
    let mut page = Page::default();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.roff
}

#[derive(Default)]
struct Page {
    roff: Roff,
    /// The text of the paragraph, heading or cell so far.
    text: Vec<Inline>,
    face: Face,
    /// Of the table: what its columns are called.
    columns: Vec<String>,
    /// Of the row: its cells so far.
    cells: Vec<Vec<Inline>>,
    /// In a list item, of which the first paragraph begins with a bullet.
    in_item: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Face {
    #[default]
    Plain,
    Emphasis,
    Strong,
    /// As it stands, over several lines.
    Block,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.begin(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(text) if self.face == Face::Block => {
                for line in text.lines() {
                    self.roff.text([roman(line)]);
                }
            }
            Event::Text(text) => self.text.push(match self.face {
                Face::Emphasis => italic(text.as_ref()),
                Face::Strong => bold(text.as_ref()),
                Face::Plain | Face::Block => roman(text.as_ref()),
            }),
            Event::Code(code) => self.text.push(bold(code.as_ref())),
            Event::SoftBreak => self.text.push(roman(" ")),
            Event::HardBreak => self.text.push(line_break()),
            _ => {}
        }
    }

    fn begin(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Emphasis => self.face = Face::Emphasis,
            Tag::Strong => self.face = Face::Strong,
            Tag::CodeBlock(_) => {
                self.face = Face::Block;
                self.roff.control("PP", []).control("RS", ["4"]).control("nf", []);
            }
            Tag::Item => {
                self.in_item = true;
                self.roff.control("IP", ["\\(bu", "2"]);
            }
            _ => {}
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Emphasis | TagEnd::Strong => self.face = Face::Plain,
            TagEnd::CodeBlock => {
                self.face = Face::Plain;
                self.roff.control("fi", []).control("RE", []);
            }
            TagEnd::Heading(HeadingLevel::H1) => self.text.clear(),
            TagEnd::Heading(level) => {
                let macro_name = if level == HeadingLevel::H2 { "SH" } else { "SS" };
                let heading = plain(&std::mem::take(&mut self.text));
                self.roff.control(macro_name, [heading.as_str()]);
            }
            TagEnd::Paragraph => {
                if !self.in_item {
                    self.roff.control("PP", []);
                }
                self.flush();
            }
            TagEnd::Item => {
                self.flush();
                self.in_item = false;
            }
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.text)),
            TagEnd::TableHead => {
                self.columns = std::mem::take(&mut self.cells).iter().map(|cell| plain(cell)).collect();
            }
            TagEnd::TableRow => self.row(),
            _ => {}
        }
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.roff.text(std::mem::take(&mut self.text));
        }
    }

    /// The first cell is the head, the last one the text; those between are told by the names of their columns.
    fn row(&mut self) {
        let mut cells = std::mem::take(&mut self.cells).into_iter().zip(&self.columns);
        let Some((head, _)) = cells.next() else { return };
        self.roff.control("TP", []);
        self.roff.text(head);
        let last = cells.next_back();
        for (cell, column) in cells.filter(|(cell, _)| !cell.is_empty()) {
            let mut line = vec![roman(format!("{}: ", capital(column)))];
            line.extend(cell);
            self.roff.text(line);
            self.roff.control("br", []);
        }
        if let Some((text, _)) = last {
            self.roff.text(text);
        }
    }
}

/// The text without its faces.
fn plain(text: &[Inline]) -> String {
    let words = text.iter().map(|part| match part {
        Inline::Roman(text) | Inline::Italic(text) | Inline::Bold(text) => text.as_str(),
        Inline::LineBreak => " ",
    });
    words.collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
