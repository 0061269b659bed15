//! Files that cannot be read at all, and the command's exit codes.

use std::process::ExitCode;

use avouch::commands::check::{CheckArgs, run};
use avouch::lang::{Level, Pipeline, read_file};

#[test]
fn a_file_that_is_not_there_or_not_text_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.toml");
    let shown = Pipeline::load(&missing).unwrap_err().render_text(false);
    assert!(shown.contains("none.toml: error[unreadable]") && shown.contains("help:"), "{shown}");
    assert!(Pipeline::load(dir.path()).unwrap_err().has_errors(), "a directory");

    let binary = dir.path().join("latin1.toml");
    std::fs::write(&binary, b"version = 1\nname = \"B\xe4r\"\n").unwrap();
    let diags = read_file(&binary).unwrap_err();
    assert_eq!(diags.count(Level::Error), 1);
    assert!(diags.render_text(false).contains("latin1.toml:2:10: error[syntax]"), "{diags}");

    let large = dir.path().join("large.toml");
    std::fs::write(&large, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(read_file(&large).unwrap_err().render_text(false).contains("at most 1048576"));
}

#[test]
fn the_exit_code_says_whether_all_files_can_run() {
    let dir = tempfile::tempdir().unwrap();
    let text = super::VALID
        .replace("${env:VERDICT_LOG}", "0x5FbDB2315678afecb367f032d93F642f64180aa3")
        .replace("${file:secret}", "${env:AVOUCH_TEST_UNSET:-0123456789abcdef}")
        .replace("${file:keystore-password}", "${env:AVOUCH_TEST_UNSET:-x}");
    let (good, bad) = (dir.path().join("good.toml"), dir.path().join("bad.toml"));
    std::fs::write(&good, &text).unwrap();
    std::fs::write(&bad, text.replace("[http]", "[htpp]")).unwrap();
    let code = |files: Vec<_>, json, canonical| run(&CheckArgs { files, json, canonical, ..CheckArgs::default() });
    assert_eq!(code(vec![good.clone()], false, false), ExitCode::SUCCESS);
    assert_eq!(code(vec![good.clone(), bad.clone()], false, false), ExitCode::FAILURE);
    assert_eq!(code(vec![bad.clone()], true, false), ExitCode::FAILURE);
    assert_eq!(code(vec![bad], false, true), ExitCode::SUCCESS, "a canonical form needs TOML only");
}
