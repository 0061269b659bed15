//! `docs/auditing.md` and what really comes of its commands: they are typed, one after the other, in a bundle and an export of
//! a fresh chain, and what they print must look as the page shows. `UPDATE=1` writes what came into the page.
#![allow(clippy::unwrap_used)]

mod pumps;

use std::path::Path;
use std::process::Command;

use avouch_system_tests::{anvil, place, skip};
use pumps::audited::{LIMIT, world};

/// A command of the page, and what the page shows of it.
struct Shown {
    /// First line of the page after the command.
    at: usize,
    command: String,
    output: Vec<String>,
}

/// What stands in the `console` blocks of a page. A command is as long as bash takes it for unfinished.
fn shown(page: &str) -> Vec<Shown> {
    let lines: Vec<&str> = page.lines().collect();
    let mut out: Vec<Shown> = Vec::new();
    let mut inside = false;
    let mut n = 0;
    while n < lines.len() {
        let line = lines[n];
        n += 1;
        if line.starts_with("```") {
            inside = line == "```console";
            continue;
        }
        if !inside {
            continue;
        }
        if let Some(first) = line.strip_prefix("$ ") {
            let mut command = first.to_owned();
            while !whole(&command) {
                command = format!("{command}\n{}", lines[n]);
                n += 1;
            }
            out.push(Shown { at: n, command, output: Vec::new() });
        } else {
            out.last_mut().unwrap().output.push(line.to_owned());
        }
    }
    out
}

fn whole(command: &str) -> bool {
    let check = Command::new("bash").args(["-n", "-c", command]).output().unwrap();
    check.status.success() && !command.ends_with('\\') && !String::from_utf8_lossy(&check.stderr).contains("unexpected")
}

/// What differs from chain to chain, taken out: hashes, addresses, signatures, numbers and times.
fn masked(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line;
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    while let Some(c) = rest.chars().next() {
        let run = rest.bytes().take_while(base64).count();
        if run > 40 {
            out.push('#');
            rest = &rest[run..];
            continue;
        }
        let hex = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let is_hex = hex >= 8 && rest[..hex].bytes().any(|b| b.is_ascii_digit());
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let n = if is_hex { hex } else { digits };
        if n > 0 {
            out.push('#');
            rest = &rest[n..];
        } else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    // A number may be written with a part after the point, or in powers of ten.
    out.replace("#.#e#", "#").replace("#.#", "#").replace("#e#", "#")
}

/// Whether output looks as shown. `…` stands for lines that are left out.
fn alike(shown: &[String], came: &[String]) -> bool {
    match shown.iter().position(|l| l.trim_start().starts_with('…')) {
        Some(n) => {
            let (before, after) = (&shown[..n], &shown[n + 1..]);
            came.len() >= before.len() + after.len()
                && alike(before, &came[..before.len()])
                && alike(after, &came[came.len() - after.len()..])
        }
        None => shown.len() == came.len() && shown.iter().zip(came).all(|(a, b)| masked(a) == masked(b)),
    }
}

#[test]
fn the_page_shows_what_its_commands_print() {
    let Some(world) = world() else { return };
    if Command::new("jq").arg("--version").output().is_err() {
        return skip("jq is not installed (Debian: apt-get install jq)");
    }
    let path = place::workspace().join("docs/auditing.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let shown = shown(&page);
    assert!(shown.len() > 20, "{} commands", shown.len());

    // Where the reader is: a bundle, an export, the chain's address, and the programs.
    let here = place::fresh_directory("page");
    let bundle = ["--device", "pump-004", "--json", "--out"];
    world.pumps.call("bundle").args(bundle).args([here.join("evidence")]).run(LIMIT).success();
    pumps::audited::copy(&world.export, &here.join("export"));
    pumps::audited::copy(&world.pumps.lane().join("public"), &here.join("published"));
    let cast = anvil::tool("cast").unwrap();
    let programs = [Path::new(&cast).parent().unwrap().to_owned(), place::programs()];
    let path_variable = programs.iter().map(|p| p.display().to_string() + ":").collect::<String>();
    let mut script = String::from("set +e\n");
    for (n, s) in shown.iter().enumerate() {
        // The page names the usual address; a test's chain has its own.
        let command = s.command.replace("http://localhost:8545", &world.anvil.rpc());
        script += &format!("{{ {command}\n}} > \"$OUT/{n}\" 2>&1\n");
    }
    let out = here.join("out");
    std::fs::create_dir(&out).unwrap();
    let ran = Command::new("bash")
        .args(["-c", &script])
        .current_dir(&here)
        .env("OUT", &out)
        .env("PATH", path_variable + &std::env::var("PATH").unwrap())
        .env("CONTRACTS", anvil::contracts())
        .env("MODEL_REGISTRY", &world.registry)
        .env("RUST_LOG", "error")
        .output()
        .unwrap();
    assert!(ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    let came: Vec<Vec<String>> = (0..shown.len())
        .map(|n| {
            let text = std::fs::read_to_string(out.join(n.to_string())).unwrap();
            let text = text.replace(&world.anvil.rpc(), "http://localhost:8545");
            text.lines().map(|l| l.trim_end().to_owned()).collect()
        })
        .collect();
    if std::env::var("UPDATE").as_deref() == Ok("1") {
        return update(&path, &page, &shown, &came);
    }
    for (s, came) in shown.iter().zip(&came) {
        assert!(
            alike(&s.output, came),
            "docs/auditing.md, line {}: `{}` should print\n{}\nand prints\n{}\n(UPDATE=1 writes that into the page)",
            s.at,
            s.command,
            s.output.join("\n"),
            came.join("\n")
        );
    }
    // An answer that means something must be that very answer.
    let answer = |of: &str| &came[shown.iter().position(|s| s.command.contains(of)).unwrap()];
    assert_eq!(answer("verifyInclusion")[..], ["true".to_owned()]);
    let last = |of: &str| answer(of).last().cloned().unwrap_or_default();
    assert!(last("avouch audit").starts_with("nothing contradicts"), "{}", last("avouch audit"));
    assert!(last("avouch replay").contains("came out the same"), "{}", last("avouch replay"));
}

/// Puts what came in the place of what is shown; what is left out stays left out.
fn update(path: &Path, page: &str, shown: &[Shown], came: &[Vec<String>]) {
    let lines: Vec<&str> = page.lines().collect();
    let mut out: Vec<String> = Vec::new();
    let mut n = 0;
    for (s, came) in shown.iter().zip(came) {
        out.extend(lines[n..s.at].iter().map(|l| (*l).to_owned()));
        n = s.at + s.output.len();
        match s.output.iter().position(|l| l.trim_start().starts_with('…')) {
            Some(at) => {
                out.extend(came.iter().take(at).cloned());
                out.push(s.output[at].clone());
                let after = s.output.len() - at - 1;
                out.extend(came.iter().skip(came.len().saturating_sub(after).max(at)).cloned());
            }
            None => out.extend(came.iter().cloned()),
        }
    }
    out.extend(lines[n..].iter().map(|l| (*l).to_owned()));
    std::fs::write(path, out.join("\n") + "\n").unwrap();
}
