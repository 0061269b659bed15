//! Which key in AWS KMS, and how to reach it.

use std::time::Duration;

use alloy::transports::http::reqwest::Url;

use super::kms_error::KmsError;

/// Which key in AWS KMS, and how to reach it. Credentials that are not given come from where AWS's own tools take them: the
/// environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`), a web identity, the container's or the machine's
/// role. Profiles in files are not read.
#[derive(Clone, PartialEq, Eq)]
pub struct KmsOptions {
    /// ARN or id of the key, or ARN or name (`alias/…`) of an alias.
    pub key: String,
    /// Region; if absent, that of the ARN, then the environment's (`AWS_REGION`, `AWS_DEFAULT_REGION`).
    pub region: Option<String>,
    /// URL of the service; if absent, the environment's (`AWS_ENDPOINT_URL_KMS`), then Amazon's in that region. `http://` is taken
    /// only where it is written here or there.
    pub endpoint: Option<String>,
    /// Access key, with its secret key; the environment's if absent.
    pub access_key: Option<String>,
    /// Secret key.
    pub secret_key: Option<String>,
    /// How long one request may take.
    pub timeout: Duration,
    /// How long a request is repeated whose failure may pass.
    pub budget: Duration,
}

impl std::fmt::Debug for KmsOptions {
    /// Without the keys of the account.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KmsOptions")
            .field("key", &self.key)
            .field("region", &self.region)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl KmsOptions {
    /// The key, with the environment's region and endpoint and the usual patience.
    pub fn new(key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            region: None,
            endpoint: None,
            access_key: None,
            secret_key: None,
            timeout: Duration::from_secs(5),
            budget: Duration::from_secs(20),
        }
    }

    /// Checks what can be checked without asking anybody: the forms of key, region and endpoint.
    ///
    /// # Errors
    /// [`KmsError::NoKey`], [`KmsError::BadRegion`], [`KmsError::OtherRegion`], [`KmsError::BadEndpoint`].
    pub fn check(&self) -> Result<(), KmsError> {
        if !is_key(&self.key) {
            return Err(KmsError::NoKey { key: self.key.chars().filter(|c| !c.is_control()).collect() });
        }
        if let Some(region) = &self.region {
            if !is_region(region) {
                return Err(KmsError::BadRegion { key: self.key.clone() });
            }
            if let Some(arn) = region_of_arn(&self.key).filter(|arn| arn != region) {
                let (arn, given) = (arn.to_owned(), region.clone());
                return Err(KmsError::OtherRegion { key: self.key.clone(), arn, given });
            }
        }
        match &self.endpoint {
            Some(endpoint) if Self::url(endpoint).is_none() => Err(KmsError::BadEndpoint { key: self.key.clone() }),
            _ => Ok(()),
        }
    }

    /// The region, as far as it is given here.
    // A program without KMS reads these options, to say so at their place in the file, and has no use for the region.
    #[cfg_attr(not(feature = "aws-kms"), allow(dead_code))]
    pub(super) fn known_region(&self) -> Option<&str> {
        self.region.as_deref().or_else(|| region_of_arn(&self.key))
    }

    /// A service's URL: http or https, a host, and nothing that may be secret.
    pub(super) fn url(text: &str) -> Option<Url> {
        let url: Url = text.trim().parse().ok()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        (matches!(url.scheme(), "http" | "https") && url.host_str().is_some() && plain).then_some(url)
    }
}

/// `arn:aws:kms:REGION:ACCOUNT:key/ID` and `…:alias/NAME`, in any partition.
fn arn(key: &str) -> Option<(&str, &str)> {
    let mut parts = key.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    let account_is_one = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    (arn == "arn" && !partition.is_empty() && service == "kms" && !region.is_empty() && account_is_one)
        .then_some((region, resource))
}

/// It becomes part of a host's name.
pub(super) fn is_region(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn region_of_arn(key: &str) -> Option<&str> {
    arn(key).map(|(region, _)| region)
}

/// Whether the service could know it.
fn is_key(key: &str) -> bool {
    let named = |name: &str, more: &[u8]| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || more.contains(&b);
        !name.is_empty() && name.len() <= 256 && name.bytes().all(fits)
    };
    let resource = match arn(key) {
        Some((region, resource)) if is_region(region) => resource,
        Some(_) => return false,
        None if key.contains(':') => return false,
        None => match key.strip_prefix("alias/") {
            Some(_) => key,
            // A UUID, or `mrk-` and 32 digits. What is longer may be a private key in the wrong place, and is not sent anywhere.
            None => return named(key, b"") && key.len() == 36,
        },
    };
    match resource.split_once('/') {
        Some(("key", id)) => named(id, b""),
        Some(("alias", name)) => named(name, b"/_"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_ids_and_aliases_are_told_from_what_is_none() {
        for key in [
            "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws-cn:kms:cn-north-1:111122223333:alias/avouch/operator",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "mrk-1234abcd12ab34cd56ef1234567890ab",
            "alias/avouch_operator",
        ] {
            KmsOptions::new(key).check().unwrap();
        }
        for none in [
            "",
            "alias/",
            "key/1234",
            "arn:aws:s3:::bucket",
            "arn:aws:kms:eu-central-1:111122223333:1234",
            "arn:aws:kms:eu-central-1:12:key/1234",
            "alias/a b",
            "keys/operator.json",
            "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
            "0x19E7\n",
        ] {
            let error = KmsOptions::new(none).check().unwrap_err();
            assert!(matches!(error, KmsError::NoKey { .. }), "{none}: {error}");
        }
    }

    #[test]
    fn the_region_is_the_arns_and_not_another_one() {
        let mut options = KmsOptions::new("arn:aws:kms:eu-central-1:111122223333:key/1234");
        assert_eq!(options.known_region(), Some("eu-central-1"));
        options.region = Some("us-east-1".into());
        let error = options.check().unwrap_err().to_string();
        assert!(error.contains("says region eu-central-1, but us-east-1 is given"), "{error}");
        options.region = Some("eu-central-1.example.com/".into());
        assert!(matches!(options.check(), Err(KmsError::BadRegion { .. })));
        let alias = KmsOptions { region: Some("us-east-1".into()), ..KmsOptions::new("alias/operator") };
        alias.check().unwrap();
        assert_eq!((alias.known_region(), KmsOptions::new("alias/operator").known_region()), (Some("us-east-1"), None));
    }

    #[test]
    fn an_endpoint_is_a_url_without_secrets() {
        for (endpoint, good) in [
            ("https://kms.eu-central-1.amazonaws.com", true),
            ("http://127.0.0.1:4566/", true),
            ("kms.eu-central-1.amazonaws.com", false),
            ("https://user:word@kms.example.com", false),
            ("https://kms.example.com?token=1", false),
            ("ftp://kms.example.com", false),
        ] {
            let options = KmsOptions { endpoint: Some(endpoint.into()), ..KmsOptions::new("alias/operator") };
            assert_eq!(options.check().is_ok(), good, "{endpoint}");
        }
    }
}
