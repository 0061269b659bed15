//! How places and texts are shown in a box.

/// The most characters of a line.
const WIDTH: usize = 48;

/// A place as it stands in the pipeline file. Of a URL only scheme and host: its user, path and query may carry a password
/// or a key. What is not a URL, such as a topic or an S3 bucket, is shown whole.
pub(super) fn shown(raw: &str) -> String {
    let Some((scheme, rest)) = raw.split_once("://") else { return raw.to_owned() };
    if scheme.ends_with("file") || scheme.ends_with("s3") {
        return raw.to_owned();
    }
    // Within `${env:NAME:-https://…}` the URL ends at the brace.
    let inside = scheme.contains("${");
    let end = rest.find(|c| matches!(c, '/' | '?' | '#') || (inside && c == '}')).unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    let brace = if inside && rest.contains('}') { "}" } else { "" };
    format!("{scheme}://{host}{brace}")
}

/// Lines of a text: broken between words where that is possible, and never cut off.
pub(super) fn wrapped(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        let mut word: Vec<char> = word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        if !line.is_empty() && line.chars().count() + 1 + word.len() > WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        while word.len() > WIDTH {
            let rest = word.split_off(WIDTH);
            lines.push(word.into_iter().collect());
            word = rest;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word);
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_url_only_the_host_is_shown() {
        assert_eq!(shown("https://user:hunter2@example.org/v3/hunter2?key=hunter2"), "https://example.org");
        assert_eq!(shown("mqtt://a:hunter2@broker:1883"), "mqtt://broker:1883");
        assert_eq!(shown("https://hooks.example.org#hunter2"), "https://hooks.example.org");
        assert_eq!(shown("${env:HOOK:-https://u:hunter2@example.org/hunter2}"), "${env:HOOK:-https://example.org}");
        assert_eq!(shown("${env:RPC:-http://localhost:8545}"), "${env:RPC:-http://localhost:8545}");
        assert_eq!(shown("https://example.org/${env:KEY}"), "https://example.org");
        assert_eq!(shown("s3://bucket/archive"), "s3://bucket/archive");
        assert_eq!(shown("${env:READINGS:-pumps.telemetry}"), "${env:READINGS:-pumps.telemetry}");
    }

    #[test]
    fn nothing_is_cut_off() {
        let text = format!("a bb {} ccc", "x".repeat(100));
        let lines = wrapped(&text);
        assert!(lines.iter().all(|l| l.chars().count() <= WIDTH), "{lines:?}");
        let all: String = lines.concat().split_whitespace().collect();
        assert_eq!(all, text.split_whitespace().collect::<String>());
    }
}
