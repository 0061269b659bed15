//! Two calls of AWS KMS' JSON interface. Requests are signed (SigV4), and credentials found and renewed, by the object store's
//! client; what may pass is asked again with growing pauses and jitter, what is permanent is said at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy::transports::http::reqwest::{
    Method, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use object_store::aws::{AmazonS3Builder, AwsAuthorizer, AwsCredential, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpErrorKind, HttpRequest, HttpRequestBody};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use serde_json::{Value, json};

use super::super::kms_error::{KmsAction, KmsError};
use super::super::kms_options::{KmsOptions, is_region};
use super::super::node::{http_client, innermost, shown};
use super::super::rpc::jittered;

/// Before the first repetition; it doubles, with jitter, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Of the service's words, so many letters are shown.
const WORDS: usize = 400;

/// One key, seen through the service.
pub(super) struct Client {
    options: KmsOptions,
    region: String,
    url: Url,
    /// The URL without what may be secret in it.
    shown: String,
    http: HttpClient,
    credentials: AwsCredentialProvider,
}

/// What the service says of a key.
pub(super) struct PublicKey {
    pub spec: String,
    pub usage: String,
    /// SubjectPublicKeyInfo.
    pub der: Vec<u8>,
}

impl Client {
    /// Asks nobody anything yet.
    pub(super) fn new(options: KmsOptions) -> Result<Self, KmsError> {
        options.check()?;
        let key = || options.key.clone();
        let from_env = |name: &str| std::env::var(name).ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let region = options
            .known_region()
            .map(str::to_owned)
            .or_else(|| from_env("AWS_REGION"))
            .or_else(|| from_env("AWS_DEFAULT_REGION"))
            .ok_or_else(|| KmsError::NoRegion { key: key() })?;
        if !is_region(&region) {
            return Err(KmsError::BadRegion { key: key() });
        }
        let endpoint = options.endpoint.clone().or_else(|| from_env("AWS_ENDPOINT_URL_KMS"));
        let endpoint = endpoint.unwrap_or_else(|| {
            let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
            format!("https://kms.{region}.{domain}")
        });
        let url = KmsOptions::url(&endpoint).ok_or_else(|| KmsError::BadEndpoint { key: key() })?;
        let unusable = |reason: String| KmsError::NoCredentials { key: key(), reason };
        let http = http_client(&url, options.timeout).map_err(|e| unusable(innermost(&e)))?;
        let credentials = credentials(&options, &region).map_err(unusable)?;
        Ok(Self { shown: shown(&url), region, url, http: HttpClient::new(http), credentials, options })
    }

    pub(super) fn key(&self) -> &str {
        &self.options.key
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.shown
    }

    /// What the service knows of the key.
    pub(super) async fn public_key(&self) -> Result<PublicKey, KmsError> {
        const ACTION: KmsAction = KmsAction::GetPublicKey;
        let answer = self.ask(ACTION, &json!({ "KeyId": self.options.key })).await?;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        // The older name of the same, which stand-ins for the service know alone.
        let spec = text("KeySpec").or_else(|| text("CustomerMasterKeySpec"));
        Ok(PublicKey {
            spec: spec.ok_or_else(|| self.malformed(ACTION, "it has no KeySpec"))?,
            usage: text("KeyUsage").ok_or_else(|| self.malformed(ACTION, "it has no KeyUsage"))?,
            der: self.bytes(ACTION, &answer, "PublicKey")?,
        })
    }

    /// A DER-encoded signature of 32 bytes.
    pub(super) async fn sign(&self, hash: &[u8]) -> Result<Vec<u8>, KmsError> {
        let request = json!({
            "KeyId": self.options.key,
            "Message": BASE64_STANDARD.encode(hash),
            "MessageType": "DIGEST",
            "SigningAlgorithm": "ECDSA_SHA_256",
        });
        let answer = self.ask(KmsAction::Sign, &request).await?;
        self.bytes(KmsAction::Sign, &answer, "Signature")
    }

    fn bytes(&self, action: KmsAction, answer: &Value, name: &str) -> Result<Vec<u8>, KmsError> {
        let text = answer[name].as_str().ok_or_else(|| self.malformed(action, format!("it has no {name}")))?;
        BASE64_STANDARD.decode(text).map_err(|_| self.malformed(action, format!("its {name} is not base64")))
    }

    /// One call, repeated while its failure may pass. To ask for a signature twice does no harm: whichever comes is one.
    async fn ask(&self, action: KmsAction, request: &Value) -> Result<Value, KmsError> {
        let began = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let error = match self.once(action, request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = jittered(pause);
            // For credentials the object store's client has asked more than once.
            let passes = error.retryable() && !matches!(error, KmsError::NoCredentials { .. });
            if !passes || began.elapsed() + wait > self.options.budget {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "asking AWS KMS again");
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn once(&self, action: KmsAction, request: &Value) -> Result<Value, KmsError> {
        let credential = self.credential().await?;
        let request = self.signed(action, request, &credential)?;
        let exchange = async {
            let response = self.http.execute(request).await?;
            let status = response.status().as_u16();
            Ok((status, response.into_body().bytes().await?))
        };
        // The HTTP client has a limit of its own; this one holds for whatever lies above it too.
        let answered = tokio::time::timeout(self.options.timeout + self.options.timeout / 4, exchange).await;
        let timeout = || KmsError::Timeout {
            key: self.options.key.clone(),
            endpoint: self.shown.clone(),
            action,
            after: self.options.timeout,
        };
        let (status, body) = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unanswered(&error, timeout)),
            Err(_) => return Err(timeout()),
        };
        let answer = serde_json::from_slice::<Value>(&body);
        match (status, answer) {
            (200, Ok(answer)) => Ok(answer),
            (200, Err(e)) => Err(self.malformed(action, e.to_string())),
            (_, answer) => Err(self.refused(action, status, &answer.unwrap_or_default())),
        }
    }

    fn unanswered(&self, error: &object_store::client::HttpError, timeout: impl FnOnce() -> KmsError) -> KmsError {
        match error.kind() {
            HttpErrorKind::Timeout => timeout(),
            _ => KmsError::Unreachable {
                key: self.options.key.clone(),
                endpoint: self.shown.clone(),
                reason: innermost(error),
            },
        }
    }

    async fn credential(&self) -> Result<Arc<AwsCredential>, KmsError> {
        let none = |reason: String| KmsError::NoCredentials { key: self.options.key.clone(), reason };
        let credential = self.credentials.get_credential().await.map_err(|e| none(innermost(&e)))?;
        // They become headers. A line feed at the end of a variable is an easy mistake, and no request would say so.
        let fit = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
        if !fit(&credential.key_id) || credential.token.as_deref().is_some_and(|token| !fit(token)) {
            return Err(none("the access key id or the session token is empty or has blanks in it".to_owned()));
        }
        Ok(credential)
    }

    fn signed(&self, action: KmsAction, request: &Value, credential: &AwsCredential) -> Result<HttpRequest, KmsError> {
        let bad = || KmsError::BadEndpoint { key: self.options.key.clone() };
        let target = format!("TrentService.{}", action.name());
        let mut signed = HttpRequest::new(HttpRequestBody::from(request.to_string()));
        *signed.method_mut() = Method::POST;
        *signed.uri_mut() = self.url.as_str().parse().map_err(|_| bad())?;
        let headers = signed.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        headers.insert("x-amz-target", HeaderValue::from_str(&target).map_err(|_| bad())?);
        AwsAuthorizer::new(credential, "kms", &self.region)
            .try_authorize(&mut signed, None)
            .map_err(|e| KmsError::NoCredentials { key: self.options.key.clone(), reason: innermost(&e) })?;
        Ok(signed)
    }

    pub(super) fn malformed(&self, action: KmsAction, reason: impl Into<String>) -> KmsError {
        KmsError::Malformed {
            key: self.options.key.clone(),
            endpoint: self.shown.clone(),
            action,
            reason: reason.into(),
        }
    }

    /// What an answer means that is none.
    fn refused(&self, action: KmsAction, status: u16, answer: &Value) -> KmsError {
        let (key, endpoint) = (self.options.key.clone(), self.shown.clone());
        // `com.amazonaws.kms#NotFoundException`, or the last part of it.
        let code = answer["__type"].as_str().unwrap_or_default().rsplit('#').next().unwrap_or_default();
        let said = answer["message"].as_str().or_else(|| answer["Message"].as_str()).unwrap_or("no reason is given");
        let message: String = said.chars().filter(|c| !c.is_control()).take(WORDS).collect();
        let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(WORDS).collect();
        match code.as_str() {
            "AccessDeniedException" => KmsError::Denied { key, action, message },
            "NotFoundException" | "InvalidArnException" => KmsError::NotFound { key, endpoint, message },
            "DisabledException" | "KMSInvalidStateException" => KmsError::NotEnabled { key, message },
            "InvalidKeyUsageException" | "UnsupportedOperationException" => {
                KmsError::WrongSpec { key, found: format!("of another kind ({message})") }
            }
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "InvalidClientTokenIdException"
            | "ExpiredTokenException"
            | "InvalidSignatureException"
            | "IncompleteSignatureException"
            | "MissingAuthenticationTokenException" => KmsError::BadCredentials { key, endpoint, code, message },
            "ThrottlingException"
            | "LimitExceededException"
            | "TooManyRequestsException"
            | "RequestLimitExceeded"
            | "DependencyTimeoutException"
            | "KeyUnavailableException"
            | "KMSInternalException" => KmsError::Busy { key, endpoint, action, code, message },
            _ if status == 408 || status == 429 || status >= 500 => {
                let code = if code.is_empty() { format!("HTTP {status}") } else { code };
                KmsError::Busy { key, endpoint, action, code, message }
            }
            _ => KmsError::Refused {
                key,
                endpoint,
                action,
                status,
                code: if code.is_empty() { "without a code".to_owned() } else { code },
                message,
            },
        }
    }
}

/// Where credentials come from: the chain of the object store's client, which is AWS's but for profiles.
fn credentials(options: &KmsOptions, region: &str) -> Result<AwsCredentialProvider, String> {
    let retry = RetryConfig {
        max_retries: 2,
        retry_timeout: options.budget.min(Duration::from_secs(10)),
        backoff: BackoffConfig { init_backoff: FIRST_PAUSE, ..BackoffConfig::default() },
    };
    let client = ClientOptions::new().with_timeout(options.timeout).with_connect_timeout(options.timeout);
    // A bucket is asked for, and never used.
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name("none")
        .with_region(region)
        .with_s3_express(false)
        .with_retry(retry)
        .with_client_options(client);
    if let (Some(access), Some(secret)) = (&options.access_key, &options.secret_key) {
        builder = builder.with_access_key_id(access).with_secret_access_key(secret);
    }
    Ok(Arc::clone(builder.build().map_err(|e| innermost(&e))?.credentials()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn client() -> Client {
        let options = KmsOptions {
            region: Some("eu-central-1".into()),
            endpoint: Some("http://127.0.0.1:9".into()),
            ..KmsOptions::new("alias/operator")
        };
        Client::new(options).unwrap()
    }

    #[test]
    fn what_the_service_refuses_says_what_to_do() {
        let client = client();
        let said = |status: u16, answer: Value| {
            let error = client.refused(KmsAction::Sign, status, &answer);
            format!("{} {error}", if error.retryable() { "again:" } else { "ends: " })
        };
        let all = [
            said(
                400,
                json!({ "__type": "AccessDeniedException", "Message": "User: arn:aws:iam::1:user/x is not authorized" }),
            ),
            said(
                400,
                json!({ "__type": "com.amazonaws.kms#NotFoundException", "message": "Alias arn:… is not found." }),
            ),
            said(400, json!({ "__type": "DisabledException", "message": "arn:… is disabled." })),
            said(400, json!({ "__type": "KMSInvalidStateException", "message": "arn:… is pending deletion." })),
            said(400, json!({ "__type": "ExpiredTokenException", "message": "The security token is expired" })),
            said(400, json!({ "__type": "UnsupportedOperationException" })),
            said(400, json!({ "__type": "ThrottlingException", "message": "Rate exceeded" })),
            said(500, json!({ "__type": "KMSInternalException" })),
            said(503, Value::Null),
            said(400, json!({ "__type": "ValidationException", "message": "1 validation error\n\u{1b}[31m" })),
            said(404, Value::Null),
        ];
        assert_eq!(
            all.join("\n"),
            "ends:  key alias/operator in AWS KMS: kms:Sign is not allowed (User: arn:aws:iam::1:user/x is not authorized); allow kms:GetPublicKey and kms:Sign on this key in its key policy, or in the policy of the role that this program runs as
ends:  key alias/operator is not in AWS KMS at http://127.0.0.1:9 (Alias arn:… is not found.); check the key, its account and its region: a key of another account needs its whole ARN
ends:  key alias/operator in AWS KMS cannot sign in its present state (arn:… is disabled.); enable it or cancel its deletion, or hand the logs over to another key with `avouch rotate`
ends:  key alias/operator in AWS KMS cannot sign in its present state (arn:… is pending deletion.); enable it or cancel its deletion, or hand the logs over to another key with `avouch rotate`
ends:  key alias/operator in AWS KMS: http://127.0.0.1:9 does not accept these credentials (ExpiredTokenException: The security token is expired); renew them, and check this machine's clock
ends:  key alias/operator in AWS KMS is of another kind (no reason is given); Ethereum's signatures need ECC_SECG_P256K1 for SIGN_VERIFY: make such a key (`aws kms create-key --key-spec ECC_SECG_P256K1 --key-usage SIGN_VERIFY`)
again: key alias/operator in AWS KMS: http://127.0.0.1:9 cannot answer kms:Sign now (ThrottlingException: Rate exceeded); it is asked again. If this lasts, look at the account's request quotas
again: key alias/operator in AWS KMS: http://127.0.0.1:9 cannot answer kms:Sign now (KMSInternalException: no reason is given); it is asked again. If this lasts, look at the account's request quotas
again: key alias/operator in AWS KMS: http://127.0.0.1:9 cannot answer kms:Sign now (HTTP 503: no reason is given); it is asked again. If this lasts, look at the account's request quotas
ends:  key alias/operator in AWS KMS: http://127.0.0.1:9 refused kms:Sign with HTTP 400 (ValidationException: 1 validation error[31m)
ends:  key alias/operator in AWS KMS: http://127.0.0.1:9 refused kms:Sign with HTTP 404 (without a code: no reason is given)"
        );
    }
}
