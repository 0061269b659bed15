//! The commands in a README's section "Try it".

use std::path::Path;

/// What stands indented in the section, block by block.
pub struct Commands {
    /// To try the pipeline.
    pub tried: String,
    /// To make its fixtures.
    pub made: String,
}

pub fn commands(readme: &Path) -> Commands {
    let text = std::fs::read_to_string(readme).unwrap();
    let (_, section) = text.split_once("\n## Try it\n").unwrap_or_else(|| panic!("{}", readme.display()));
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut blocks = vec![String::new()];
    for line in section.lines() {
        match (line.strip_prefix("    "), blocks.last_mut()) {
            (Some(command), Some(block)) => {
                block.push_str(command);
                block.push('\n');
            }
            (None, Some(block)) if !block.is_empty() => blocks.push(String::new()),
            _ => {}
        }
    }
    let of = |fixtures: bool| {
        let chosen: Vec<String> =
            blocks.iter().filter(|b| !b.is_empty() && b.contains("fixtures/") == fixtures).cloned().collect();
        assert_eq!(chosen.len(), 1, "{}: {blocks:?}", readme.display());
        chosen.concat()
    };
    Commands { tried: of(false), made: of(true) }
}
