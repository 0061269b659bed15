//! `avouch top`: what is made of metrics, on a screen and as plain text.
//!
//! `INSTA_UPDATE=always cargo test --release --workspace --test top` writes the snapshots anew.

#![allow(clippy::unwrap_used)]

use avouch::top::{Column, Figures, Screen, Told, View, plain, samples};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// 2026-01-07T09:00:30Z.
const CLOCK: f64 = 1_767_776_430.0;

fn figures(text: &str) -> Figures {
    Figures::of(&samples(text).unwrap())
}

/// Three lanes: one far behind with alarms, one at rest, one that has just begun; two seconds after another look.
fn view() -> View {
    let text = include_str!("metrics.txt");
    let before = text.replace("rows_in_total{lane=\"0\"} 1.234567e+06", "rows_in_total{lane=\"0\"} 1234067");
    assert_ne!(before, text);
    View::new(figures(text), Some((&figures(&before), 2.0)), CLOCK)
}

fn drawn(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame)).unwrap();
    terminal.backend().to_string()
}

fn press(screen: &mut Screen, code: KeyCode) -> Told {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE))
}

#[test]
fn the_screen() {
    let mut screen = Screen::new("http://127.0.0.1:9464", view());
    insta::assert_snapshot!("by_lane", drawn(&screen, 130, 10));
    for _ in 0..2 {
        assert_eq!(press(&mut screen, KeyCode::Right), Told::Stay);
    }
    insta::assert_snapshot!("by_lag", drawn(&screen, 130, 10));
    press(&mut screen, KeyCode::Char('r'));
    for _ in 0..2 {
        press(&mut screen, KeyCode::Char('j'));
    }
    screen.trouble("no pipeline answers".to_owned());
    insta::assert_snapshot!("scrolled_and_without_an_answer", drawn(&screen, 130, 7));
    screen.show(view());
    assert!(!drawn(&screen, 130, 10).contains("no newer figures"));
    // As many whole columns as fit.
    insta::assert_snapshot!("narrow", drawn(&Screen::new("http://127.0.0.1:9464", view()), 80, 9));
    // Nothing overflows where there is no room.
    for (width, height) in [(1, 1), (20, 4), (60, 5)] {
        drawn(&screen, width, height);
    }
}

#[test]
fn keys_that_end_it() {
    let mut screen = Screen::new("x", view());
    assert_eq!(press(&mut screen, KeyCode::Char('x')), Told::Stay);
    assert_eq!(press(&mut screen, KeyCode::Char('c')), Told::Stay);
    assert_eq!(press(&mut screen, KeyCode::Char('q')), Told::Quit);
    assert_eq!(press(&mut screen, KeyCode::Esc), Told::Quit);
    assert_eq!(screen.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Told::Quit);
}

#[test]
fn the_plain_table() {
    insta::assert_snapshot!("plain", plain(&view(), Column::Lane, false));
    // Lanes without a figure come last, whichever way it is sorted.
    for descending in [false, true] {
        let table = plain(&view(), Column::Pending, descending);
        assert!(table.lines().nth(3).unwrap().trim_start().starts_with("12 "), "{table}");
    }
    let first_look = View::new(figures(include_str!("metrics.txt")), None, CLOCK);
    assert!(first_look.rates.is_empty());
}

/// A process that was started again counts from anew, and lanes of other processes that it anchors are not its own.
#[test]
fn figures_of_lanes() {
    let text = include_str!("metrics.txt");
    let now = figures(text);
    assert_eq!(now.lanes.keys().copied().collect::<Vec<_>>(), [0, 1, 12]);
    let later = figures(&text.replace("rows_in_total{lane=\"0\"} 1.234567e+06", "rows_in_total{lane=\"0\"} 17"));
    let view = View::new(later, Some((&now, 1.0)), CLOCK);
    assert_eq!(view.rates.get(&0), None);
    assert_eq!(view.rates.get(&1), Some(&0.0));
    assert_eq!(now.process.sinks_waiting, [("hook".to_owned(), 0)]);
    assert_eq!(now.process.stores_failing, [1]);
    assert!(now.process.reload_failed);
    assert_eq!(figures(""), Figures::default());
}
