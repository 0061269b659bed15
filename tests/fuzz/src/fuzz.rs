//! libFuzzer's loop around the target that `AVOUCH_FUZZ_TARGET` names. See `tests/fuzz/run`.
//!
//! The target's well-formed inputs are first written into the directory that `AVOUCH_FUZZ_SEEDS` names, which is one of the
//! corpus: without them a file that begins with a magic word and ends with a checksum is never got into.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

/// The target; with `list` their names are printed instead.
static TARGET: LazyLock<&avouch_fuzz::Target> = LazyLock::new(|| {
    let name = std::env::var("AVOUCH_FUZZ_TARGET").unwrap_or_default();
    avouch_fuzz::TARGETS.iter().find(|t| t.name == name).unwrap_or_else(|| {
        avouch_fuzz::TARGETS.iter().for_each(|t| println!("{}", t.name));
        if name != "list" {
            eprintln!("set AVOUCH_FUZZ_TARGET to one of these, not to {name:?}");
        }
        std::process::exit(2)
    })
});

fn init() {
    let Some(directory) = std::env::var_os("AVOUCH_FUZZ_SEEDS").map(std::path::PathBuf::from) else { return };
    for (i, seed) in (TARGET.seeds)().iter().enumerate() {
        let path = directory.join(format!("well-formed-{i}"));
        if let Err(e) = std::fs::write(&path, seed) {
            eprintln!("{}: {e}", path.display());
            std::process::exit(2);
        }
    }
}

fuzz_target!(init: { LazyLock::force(&TARGET); init(); }, |data: &[u8]| (TARGET.run)(data));
