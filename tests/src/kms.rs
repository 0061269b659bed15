//! AWS KMS: moto's server, with what it lacks of KMS (`connectors/tests/anchoring/kms_server.py` says what that is).

use std::time::Duration;

use serde_json::{Value, json};

use crate::avouch::Avouch;
use crate::place::{self, Missing};
use crate::process::{self, Process};

/// A running KMS. Dropping it kills it.
#[derive(Debug)]
pub struct Kms {
    port: u16,
    process: Process,
}

const REGION: &str = "eu-central-1";

impl Kms {
    /// Starts it on a free port, without any key.
    ///
    /// # Errors
    /// [`Missing`] if moto is not installed.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start() -> Result<Self, Missing> {
        let python = place::cache().join("moto-venv/bin/python");
        if !python.is_file() {
            return Err(Missing("moto is not installed: run tests/setup/install moto".to_owned()));
        }
        let directory = place::fresh_directory("kms");
        let port = place::free_port();
        let mut command = process::command(&python);
        command.arg(place::workspace().join("connectors/tests/anchoring/kms_server.py")).arg(port.to_string());
        let mut kms = Self { port, process: Process::start("kms", command, &directory.join("kms.log")) };
        crate::eventually("KMS answers", Duration::from_secs(60), || {
            assert!(kms.process.ended().is_none(), "moto did not start:\n{}", kms.process.log_tail());
            kms.try_call("ListKeys", &json!({})).ok()
        });
        Ok(kms)
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Its region.
    pub fn region(&self) -> &'static str {
        REGION
    }

    /// What the owner of the keys does, by other tools than Avouch.
    ///
    /// # Panics
    /// If it is refused.
    pub fn call(&self, action: &str, request: &Value) -> Value {
        self.try_call(action, request).unwrap_or_else(|error| panic!("{action}: {error}"))
    }

    fn try_call(&self, action: &str, request: &Value) -> Result<Value, String> {
        // Moto wants somebody to have signed; what only these tests ask is not checked for who asks.
        let who = format!(
            "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/kms/aws4_request, SignedHeaders=host, Signature=0"
        );
        let mut response = ureq::post(self.endpoint())
            .header("content-type", "application/x-amz-json-1.1")
            .header("x-amz-target", format!("TrentService.{action}"))
            .header("authorization", who)
            .send(request.to_string())
            .map_err(|error| error.to_string())?;
        let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// A fresh key for Ethereum's signatures, under an alias.
    pub fn create_key(&self, alias: &str) {
        let made = self.call("CreateKey", &json!({ "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY" }));
        let id = &made["KeyMetadata"]["KeyId"];
        self.call("CreateAlias", &json!({ "AliasName": alias, "TargetKeyId": id }));
    }

    /// Gives a call of the program the credentials that the service knows.
    #[must_use]
    pub fn credentials(&self, call: Avouch) -> Avouch {
        call.env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }
}
