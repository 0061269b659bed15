//! libFuzzer's loop around the target that `AVOUCH_FUZZ_TARGET` names. See `tests/fuzz/run`.

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

fuzz_target!(init: { LazyLock::force(&TARGET); }, |data: &[u8]| (TARGET.run)(data));
