//! docs/tasks.md: what a newcomer types, and what he sees. Every block is typed here, in order, in a fresh directory beside a
//! real broker, so that the page cannot rot.
//!
//! A block marked `console` has commands (lines that begin with `$ `, and their continuations after `\` or in lines that begin
//! with `>`) and what each prints,
//! standard output and error together. `…` in what is printed stands for anything on that line, a line of `…` alone for any
//! lines. A block with `title=NAME` behind its language is a file to be saved under that name.
//!
//! `UPDATE=1` writes what was seen into the page, with what differs from run to run as it was written before where it matches.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use avouch_system_tests::{KafkaBroker, place, require};

/// A command of the page, and the lines that follow it.
#[derive(Debug)]
struct Step {
    /// Line of the page where it stands, from 1.
    line: usize,
    command: String,
    /// As it stands on the page.
    shown: String,
    printed: Vec<String>,
}

#[derive(Debug)]
enum Block {
    File { name: String, text: String },
    Console(Vec<Step>),
}

fn page() -> PathBuf {
    place::workspace().join("docs/tasks.md")
}

fn blocks(text: &str) -> Vec<Block> {
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((_, line)) = lines.next() {
        let Some(marked) = line.strip_prefix("```") else { continue };
        let body: Vec<(usize, &str)> = lines.by_ref().take_while(|(_, l)| *l != "```").collect();
        if let Some((_, name)) = marked.split_once(" title=") {
            let text = body.iter().map(|(_, l)| format!("{l}\n")).collect();
            out.push(Block::File { name: name.to_owned(), text });
        } else if marked == "console" {
            let mut steps: Vec<Step> = Vec::new();
            let mut goes_on = false;
            for (n, l) in body {
                if goes_on {
                    let step = steps.last_mut().unwrap();
                    step.command.push_str(&format!("\n{l}"));
                    step.shown.push_str(&format!("\n{l}"));
                    goes_on = l.ends_with('\\');
                } else if let Some(more) = l.strip_prefix('>') {
                    let step = steps.last_mut().unwrap();
                    assert!(step.printed.is_empty(), "docs/tasks.md:{}: `>` goes on with a command", n + 1);
                    step.command.push_str(&format!("\n{}", more.strip_prefix(' ').unwrap_or(more)));
                    step.shown.push_str(&format!("\n{l}"));
                } else if let Some(command) = l.strip_prefix("$ ") {
                    goes_on = command.ends_with('\\');
                    steps.push(Step {
                        line: n + 1,
                        command: command.to_owned(),
                        shown: l.to_owned(),
                        printed: Vec::new(),
                    });
                } else {
                    steps.last_mut().expect("a console block begins with a command").printed.push(l.to_owned());
                }
            }
            out.push(Block::Console(steps));
        }
    }
    out
}

/// Whether a line is what is expected, in which `…` stands for anything.
fn alike(expected: &str, seen: &str) -> bool {
    let parts: Vec<&str> = expected.split('…').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return expected == seen };
    let Some(mut rest) = seen.strip_prefix(first) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// Whether all lines are what is expected; a line of `…` alone stands for any number of lines.
fn all_alike(expected: &[String], seen: &[String]) -> bool {
    match (expected.split_first(), seen.split_first()) {
        (None, None) => true,
        (Some((e, rest)), _) if e == "…" => {
            all_alike(rest, seen) || seen.split_first().is_some_and(|(_, left)| all_alike(expected, left))
        }
        (Some((e, expected)), Some((s, seen))) => alike(e, s) && all_alike(expected, seen),
        _ => false,
    }
}

#[test]
fn patterns_stand_for_what_differs() {
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(all_alike(&lines("a … c\n…\nz"), &lines("a b c\nx\ny\nz")));
    assert!(all_alike(&lines("…\nz"), &lines("z")));
    assert!(!all_alike(&lines("a … c"), &lines("a b d")));
    assert!(!all_alike(&lines("a"), &lines("a\nb")));
    assert!(!all_alike(&lines("a\nb"), &lines("a")));
}

fn run(command: &str, directory: &Path, brokers: &str) -> Vec<String> {
    let bin = place::programs();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(directory)
        .env("PATH", path)
        .env("KAFKA_BROKERS", brokers)
        .env("TZ", "UTC")
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.replace(brokers, "localhost:9092").lines().map(|l| l.trim_end().to_owned()).collect()
}

#[test]
fn what_the_page_says_is_what_is_seen() {
    let kafka = require!(KafkaBroker::start());
    let directory = place::fresh_directory("tasks");
    let text = std::fs::read_to_string(page()).unwrap();
    let update = std::env::var_os("UPDATE").is_some();
    let (mut updated, mut wrong) = (text.clone(), Vec::new());
    let (mut commands, mut written) = (0, 0);
    for block in blocks(&text) {
        match block {
            Block::File { name, text } => std::fs::write(directory.join(name), text).unwrap(),
            Block::Console(steps) => {
                for step in steps {
                    commands += 1;
                    let seen = run(&step.command, &directory, &kafka.bootstrap());
                    if all_alike(&step.printed, &seen) {
                        written += updated[written..].find(&step.shown).unwrap() + step.shown.len();
                        continue;
                    }
                    let join = |lines: &[String]| lines.iter().map(|l| format!("{l}\n")).collect::<String>();
                    let shown = format!("{}\n", step.shown);
                    if update {
                        let (old, new) = (join(&step.printed), join(&seen));
                        let (old, new) = (format!("{shown}{old}"), format!("{shown}{new}"));
                        let at = written + updated[written..].find(&old).unwrap();
                        updated.replace_range(at..at + old.len(), &new);
                        written = at + new.len();
                    }
                    wrong.push(format!("docs/tasks.md:{}: {shown}{}", step.line, join(&seen)));
                }
            }
        }
    }
    assert!(commands > 10, "the page has {commands} commands");
    if update {
        std::fs::write(page(), updated).unwrap();
    } else {
        assert!(wrong.is_empty(), "what is seen is not what the page says:\n{}", wrong.join("\n"));
    }
}
