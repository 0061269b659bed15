//! Every target takes what it was given to begin with, and what was kept because it once broke something.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use avouch_fuzz::TARGETS;

fn seeds(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target)
}

#[test]
fn every_target_takes_its_seeds() {
    for target in TARGETS {
        println!("{}", target.name);
        let own = (target.seeds)();
        assert!(!own.is_empty(), "{}", target.name);
        for seed in &own {
            (target.run)(seed);
            // And cut short, or with a byte changed, in every place of the first few hundred.
            for at in 0..seed.len().min(300) {
                (target.run)(&seed[..at]);
                let mut changed = seed.clone();
                changed[at] ^= 0x55;
                (target.run)(&changed);
            }
        }
        (target.run)(&[]);
    }
}

#[test]
fn every_target_takes_what_was_kept() {
    let mut runs = 0;
    for target in TARGETS {
        let Ok(kept) = std::fs::read_dir(seeds(target.name)) else { continue };
        let mut kept: Vec<PathBuf> = kept.map(|e| e.unwrap().path()).collect();
        kept.sort();
        for path in kept {
            eprintln!("{}", path.display());
            (target.run)(&std::fs::read(path).unwrap());
            runs += 1;
        }
    }
    println!("{runs} kept inputs");
}
