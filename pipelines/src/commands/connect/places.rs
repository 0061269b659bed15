//! Places that are written to: directories, object stores, the schema registry's door, and whoever takes alerts.

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;

use avouch_connectors::store::{ObjectStoreOptions, ObjectStoreRoot, open_object_store};

use super::{ANSWER, error, runtime};
use crate::lang::{DeadLetterKind, Diagnostics, Format, Pipeline, SinkKind, Span, Text};
use crate::runtime::{CheckpointStore, schema_registry, state_dir};

/// The name of what is written and removed again to try a place.
const TRIAL: &str = "avouch-check";

/// Tries all of them; returns what was found.
pub(super) fn try_all(pipeline: &Pipeline, diags: &mut Diagnostics) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(registry(pipeline, diags));
    found.extend(checkpoints(pipeline, diags));
    for sink in &pipeline.sinks {
        match &sink.kind {
            SinkKind::Parquet(p) => found.extend(archive(&p.path, &p.url, diags)),
            SinkKind::Alertmanager(a) => found.extend(receiver(&a.url, diags)),
            SinkKind::Webhook(w) => found.extend(receiver(&w.url, diags)),
            SinkKind::Kafka(_) | SinkKind::Stdout => {}
        }
    }
    if let DeadLetterKind::Files(files) = &pipeline.dead_letter.kind
        && let Err(why) = writable(&files.dir)
    {
        let span = pipeline.dead_letter.span;
        error(
            diags,
            "not-writable",
            span,
            &format!("dead letters cannot be written: {why}"),
            "correct `path`, or the rights there",
        );
    }
    found
}

fn registry(pipeline: &Pipeline, diags: &mut Diagnostics) -> Option<String> {
    let Format::Avro(r) = &pipeline.source.format else { return None };
    let asked = runtime().map_err(|e| e.to_string()).and_then(|runtime| {
        let registry = schema_registry(pipeline, &state_dir(pipeline)).map_err(|e| e.to_string())?;
        let Some(registry) = registry else { return Ok(()) };
        runtime.block_on(async {
            match tokio::time::timeout(ANSWER, registry.ping()).await {
                Ok(answer) => answer.map_err(|e| e.to_string()),
                Err(_) => Err(format!("the schema registry does not answer in {} s", ANSWER.as_secs())),
            }
        })
    });
    match asked {
        Ok(()) => Some("the schema registry".to_owned()),
        Err(why) => {
            error(
                diags,
                "no-connection",
                r.url.span,
                &why,
                "correct `registry`, or start it; records would wait for it",
            );
            None
        }
    }
}

fn checkpoints(pipeline: &Pipeline, diags: &mut Diagnostics) -> Option<String> {
    let span = pipeline.checkpoint.span;
    if pipeline.checkpoint.object_store.is_none() {
        if let Err(why) = writable(&pipeline.checkpoint.dir) {
            let message = format!("checkpoints cannot be written: {why}");
            error(diags, "not-writable", span, &message, "correct `checkpoint.store`, or the rights there");
        }
        return None;
    }
    let tried = CheckpointStore::open(pipeline)
        .map_err(|e| e.to_string())
        .and_then(|store| store.root().map_or(Ok(()), |root| bucket(root, &pipeline.name.value)));
    match tried {
        Ok(()) => Some("the checkpoint store".to_owned()),
        Err(why) => {
            let help = "correct the store, its keys, or their rights: read, put, list and delete are needed";
            error(diags, "no-connection", span, &why, help);
            None
        }
    }
}

fn archive(path: &Text, url: &str, diags: &mut Diagnostics) -> Option<String> {
    let tried = match url.strip_prefix("file://") {
        Some(dir) => writable(Path::new(dir)),
        // Credentials, endpoint and region come from the environment.
        None => open_object_store(url, &ObjectStoreOptions::default()).and_then(|root| bucket(&root, "")),
    };
    match tried {
        Ok(()) => Some(format!("the archive {}", path.raw())),
        Err(why) => {
            let message = format!("the archive cannot be written: {why}");
            error(diags, "not-writable", path.span, &message, "correct `path`, or the rights there");
            None
        }
    }
}

/// Puts an object, reads it back and removes it.
fn bucket(root: &ObjectStoreRoot, under: &str) -> Result<(), String> {
    let objects = root.under(under);
    let (tell, told) = mpsc::channel();
    // A thread, because a store that is away is asked again for longer than anyone waits.
    std::thread::spawn(move || {
        let name = format!("{TRIAL}-{}", std::process::id());
        let trial = || {
            objects.put_new(&name, b"avouch check --connect")?;
            let read = objects.get(&name);
            objects.delete(&name)?;
            read
        };
        tell.send(trial().map_err(|e| e.to_string()))
    });
    match told.recv_timeout(ANSWER) {
        Ok(Ok(Some(_))) => Ok(()),
        Ok(Ok(None)) => Err("what was written there could not be read back".to_owned()),
        Ok(Err(why)) => Err(why),
        Err(_) => Err(format!("no answer from the object store in {} s", ANSWER.as_secs())),
    }
}

/// Whether files can be made in a directory, or in the nearest one above it that is there.
fn writable(dir: &Path) -> Result<(), String> {
    let mut there = dir.ancestors().map(|a| if a.as_os_str().is_empty() { Path::new(".") } else { a });
    let Some(nearest) = there.find(|a| a.exists()) else {
        return Err("no directory above it exists".to_owned());
    };
    let trial = nearest.join(format!(".{TRIAL}-{}", std::process::id()));
    let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&trial);
    made.and_then(|_| std::fs::remove_file(&trial)).map_err(|e| format!("no file can be made there ({})", e.kind()))
}

/// Whether somebody listens. Nothing is sent: what takes alerts would raise one.
fn receiver(url: &Text, diags: &mut Diagnostics) -> Option<String> {
    match listens(url.as_str()) {
        Ok(()) => Some(url.raw().to_owned()),
        Err(why) => {
            say_away(url.span, url.raw(), &why, diags);
            None
        }
    }
}

fn say_away(span: Span, shown: &str, why: &str, diags: &mut Diagnostics) {
    let message = format!("nobody answers at `{}`: {why}", shown.escape_debug());
    error(
        diags,
        "no-connection",
        span,
        &message,
        "correct `url`, or start what listens there; a run would wait for it",
    );
}

fn listens(url: &str) -> Result<(), String> {
    let (tls, rest) = match url.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, url.strip_prefix("http://").unwrap_or(url)),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let has_port = host.rsplit_once(':').is_some_and(|(_, p)| !p.is_empty() && p.chars().all(|c| c.is_ascii_digit()));
    let address = if has_port { host.to_owned() } else { format!("{host}:{}", if tls { 443 } else { 80 }) };
    let mut last = "the host has no address".to_owned();
    // Not the error itself: it may repeat a part of the address, which may be a secret.
    let addresses = address.to_socket_addrs().map_err(|_| "the host's name is not known".to_owned())?;
    for a in addresses {
        match TcpStream::connect_timeout(&a, ANSWER / 2) {
            Ok(_) => return Ok(()),
            Err(e) => last = e.kind().to_string(),
        }
    }
    Err(last)
}
