//! The screen: what is drawn, and what keys do.

use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use avouch_engine::decode::format_timestamp;

use super::figures::View;
use super::table::{Column, rows, totals, widths};
use crate::lang::plural;

/// Between columns.
const GAP: usize = 2;

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// To go on.
    Stay,
    /// To end.
    Quit,
}

/// What is shown, and how.
#[derive(Debug, Clone)]
pub struct Screen {
    address: String,
    view: View,
    /// Why there is no newer one.
    trouble: Option<String>,
    by: Column,
    descending: bool,
    /// How many lanes are scrolled past.
    first: usize,
}

impl Screen {
    /// Of the process at an address.
    pub fn new(address: &str, view: View) -> Self {
        Self { address: address.to_owned(), view, trouble: None, by: Column::Lane, descending: false, first: 0 }
    }

    /// Shows newer figures.
    pub fn show(&mut self, view: View) {
        self.view = view;
        self.trouble = None;
    }

    /// Says why there are no newer figures; the last ones stay.
    pub fn trouble(&mut self, why: String) {
        self.trouble = Some(why);
    }

    /// Does what a key asks for.
    pub fn key(&mut self, key: KeyEvent) -> Told {
        if key.kind == KeyEventKind::Release {
            return Told::Stay;
        }
        let last = self.view.now.lanes.len().saturating_sub(1);
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Told::Quit,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Told::Quit,
            KeyCode::Right | KeyCode::Char('>') => self.sort_by(1),
            KeyCode::Left | KeyCode::Char('<') => self.sort_by(Column::ALL.len() - 1),
            KeyCode::Char('r') => self.descending = !self.descending,
            KeyCode::Down | KeyCode::Char('j') => self.first = (self.first + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.first = self.first.saturating_sub(1),
            KeyCode::PageDown => self.first = (self.first + 10).min(last),
            KeyCode::PageUp => self.first = self.first.saturating_sub(10),
            KeyCode::Home => self.first = 0,
            _ => {}
        }
        Told::Stay
    }

    fn sort_by(&mut self, further: usize) {
        let at = Column::ALL.iter().position(|c| *c == self.by).unwrap_or(0);
        self.by = Column::ALL[(at + further) % Column::ALL.len()];
        // What is worst comes first, but lanes in their order.
        self.descending = self.by != Column::Lane;
    }

    /// Draws it.
    pub fn draw(&self, frame: &mut Frame<'_>) {
        let head = self.head();
        let height = u16::try_from(head.len()).unwrap_or(u16::MAX);
        let parts = [Constraint::Length(height), Constraint::Length(1), Constraint::Min(3), Constraint::Length(1)];
        let [top, _, middle, bottom] = Layout::vertical(parts).areas(frame.area());
        frame.render_widget(Paragraph::new(head), top);
        let (table, hidden) = self.table(usize::from(middle.width), usize::from(middle.height));
        frame.render_widget(table, middle);
        let mut keys = "q quit   ←→ sort by   r reverse   ↑↓ scroll".to_owned();
        if hidden > 0 {
            keys.push_str(&format!("   {} do not fit", plural(hidden, "column")));
        }
        frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), bottom);
    }

    fn head(&self) -> Vec<Line<'static>> {
        let process = &self.view.now.process;
        let time = format_timestamp((self.view.clock * 1000.0) as i64);
        let (running, opening) = process.lanes;
        let mut lanes = format!("{} running", plural(running as usize, "lane"));
        if opening > 0 {
            lanes.push_str(&format!(", {opening} opening"));
        }
        let name = Span::styled(format!("avouch {}", process.version), Style::new().add_modifier(Modifier::BOLD));
        let rest = format!("  {}  {}Z  {lanes}", self.address, time.get(..19).unwrap_or(&time));
        let mut out = vec![Line::from(vec![name, Span::raw(rest)])];
        let bad = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
        let mut say = |text: String| out.push(Line::styled(text, bad));
        if let Some(why) = &self.trouble {
            // What to do about it was said when it was started; here is one line.
            say(format!("no newer figures: {}", why.split(';').next().unwrap_or_default()));
        }
        if process.reload_failed {
            say("the last reload failed: the pipeline runs on as it was before".to_owned());
        }
        if !process.stores_failing.is_empty() {
            say(format!("the checkpoint store fails: lanes {}", listed(&process.stores_failing)));
        }
        if !process.disconnected.is_empty() {
            say(format!("not connected: {}", process.disconnected.join(", ")));
        }
        if !process.sinks_waiting.is_empty() {
            let mut names: Vec<&str> = process.sinks_waiting.iter().map(|(s, _)| s.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            say(format!("down, and tried again: {}", names.join(", ")));
        }
        out
    }

    /// The table, as many whole columns of it as fit, since a number that is cut off is another one; and how many do not.
    fn table(&self, width: usize, height: usize) -> (Table<'static>, usize) {
        let lanes = rows(&self.view, self.by, self.descending);
        let all = totals(&self.view);
        let head: Vec<String> = Column::ALL
            .iter()
            .map(|c| match *c == self.by {
                true => format!("{}{}", c.title(), if self.descending { '▼' } else { '▲' }),
                false => c.title().to_owned(),
            })
            .collect();
        let mut lines = vec![head.clone(), all.clone()];
        lines.extend(lanes.iter().map(|(_, cells)| cells.clone()));
        let mut widths = widths(&lines);
        let fits = |n: usize| widths[..n].iter().sum::<usize>() + GAP * (n - 1) <= width;
        let columns = (1..=widths.len()).rev().find(|n| fits(*n)).unwrap_or(1);
        widths.truncate(columns);
        let line = |cells: &[String]| {
            let cell = |(i, text): (usize, &String)| {
                let style = match Column::ALL[i] {
                    Column::Critical if text != "0" => Style::new().fg(Color::Red),
                    Column::Warning if text != "0" => Style::new().fg(Color::Yellow),
                    _ => Style::new(),
                };
                Cell::from(format!("{text:>w$}", w = widths[i])).style(style)
            };
            Row::new(cells.iter().take(columns).enumerate().map(cell).collect::<Vec<_>>())
        };
        // Two lines are the heading's and that of all lanes together.
        let room = height.saturating_sub(2);
        let first = self.first.min(lanes.len().saturating_sub(room));
        let shown: Vec<Row<'static>> = lanes.iter().skip(first).take(room).map(|(_, cells)| line(cells)).collect();
        let heads = head.iter().zip(&widths).map(|(text, w)| format!("{text:>w$}"));
        let heading = Row::new(heads).style(Style::new().add_modifier(Modifier::REVERSED));
        let constraints = widths.iter().map(|w| Constraint::Length(u16::try_from(*w).unwrap_or(u16::MAX)));
        let table = Table::new(shown, constraints)
            .header(heading)
            .footer(line(&all).style(Style::new().add_modifier(Modifier::BOLD)))
            .column_spacing(GAP as u16);
        (table, Column::ALL.len() - columns)
    }
}

fn listed(lanes: &[i32]) -> String {
    lanes.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}
