#![allow(clippy::unwrap_used)]
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Path as UrlPath;
use axum::http::{HeaderMap, StatusCode as Code};
use axum::routing::get;

use super::*;

/// A registry with schema 1 (Avro), 2 (Protobuf), 3 (with references) and no other; it counts requests.
async fn serve(auth: Option<&'static str>) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = move |headers: HeaderMap, UrlPath(id): UrlPath<u32>| {
        let count = count.clone();
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            let given = headers.get("authorization").and_then(|h| h.to_str().ok());
            if auth.is_some() && given != auth {
                return (Code::UNAUTHORIZED, String::new());
            }
            match id {
                1 => (Code::OK, r#"{"schema":"\"long\""}"#.to_owned()),
                2 => (Code::OK, r#"{"schema":"syntax…","schemaType":"PROTOBUF"}"#.to_owned()),
                3 => {
                    (Code::OK, r#"{"schema":"\"X\"","references":[{"name":"X","subject":"x","version":1}]}"#.to_owned())
                }
                4 => (Code::OK, "<html>".to_owned()),
                5 => (Code::SERVICE_UNAVAILABLE, String::new()),
                _ => (Code::NOT_FOUND, r#"{"error_code":40403,"message":"Schema not found"}"#.to_owned()),
            }
        }
    };
    let app = Router::new()
        .route("/registry/schemas/ids/{id}", get(answer))
        .route("/registry/subjects", get(|| async { "[]" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/registry", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, asked)
}

#[tokio::test]
async fn schemas_are_asked_for_once_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (url, asked) = serve(None).await;
    let registry = SchemaRegistry::new(&url, RegistryAuth::None, dir.path()).unwrap();
    registry.ping().await.unwrap();
    for _ in 0..2 {
        assert_eq!(registry.schema(1).await.unwrap(), RegistrySchema::Avro(b"\"long\"".to_vec()));
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    for _ in 0..2 {
        assert_eq!(registry.schema(9).await.unwrap(), RegistrySchema::Unknown);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 3, "that there is none is asked again");
    assert!(matches!(registry.schema(2).await.unwrap(), RegistrySchema::Unusable(why) if why.contains("PROTOBUF")));
    assert!(matches!(registry.schema(3).await.unwrap(), RegistrySchema::Unusable(why) if why.contains("refers")));
    for id in [4, 5] {
        let e = registry.schema(id).await.unwrap_err();
        assert!(matches!(&e, RegistryError::Unreachable { .. }), "{e}");
    }
    // What is kept serves without the registry; another registry's schemas are others.
    let gone = SchemaRegistry::new("http://127.0.0.1:1/registry", RegistryAuth::None, dir.path()).unwrap();
    assert!(gone.schema(1).await.unwrap_err().to_string().contains("does not answer"));
}

#[tokio::test]
async fn who_we_are() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _) = serve(Some("Basic dXNlcjpwYXNz")).await;
    let basic = RegistryAuth::Basic { username: "user".into(), password: "pass".into() };
    assert_eq!(format!("{basic:?}"), "Basic(…)");
    let e = SchemaRegistry::new(&url, RegistryAuth::None, dir.path()).unwrap().schema(1).await.unwrap_err();
    assert!(matches!(e, RegistryError::Denied { status: 401, .. }), "{e}");
    SchemaRegistry::new(&url, basic, dir.path()).unwrap().schema(1).await.unwrap();
    let within = url.replace("http://", "http://user:pass@");
    let other = tempfile::tempdir().unwrap();
    let registry = SchemaRegistry::new(&within, RegistryAuth::None, other.path()).unwrap();
    let host = url.trim_end_matches("/registry");
    assert_eq!(registry.url(), format!("{host}/…"), "no password in what is shown, nor a path, which may hold a key");
    registry.schema(1).await.unwrap();
    let (url, _) = serve(Some("Bearer abc")).await;
    SchemaRegistry::new(&url, RegistryAuth::Token("abc".into()), dir.path()).unwrap().schema(1).await.unwrap();
    assert!(SchemaRegistry::new("ftp://x", RegistryAuth::None, dir.path()).is_err());
}
