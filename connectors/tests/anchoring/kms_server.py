"""moto's server, with what its KMS leaves out and the tests here need:

- `Sign` of a digest (`MessageType` `DIGEST`): moto hashes once more whatever it is given;
- a key that is disabled signs nothing, and a key's policy is asked about `GetPublicKey` and `Sign`;
- a request must be signed (SigV4), which botocore's own code checks here: moto takes any signature.

usage: kms_server.py PORT
Whoever asks is `test` with the secret `test`. Run by the Python that has moto (tests/setup/install moto).
"""

import hashlib
import sys
import threading

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from moto.core.exceptions import JsonRESTError
from moto.kms import utils as kms_utils
from moto.kms.policy_validator import ALTERNATIVE_ACTIONS, validate_policy
from moto.kms.responses import KmsResponse
from moto.server import main

SECRET = {"test": "test"}
for name in ("kms:GetPublicKey", "kms:Sign"):
    ALTERNATIVE_ACTIONS[name] = ["kms:*", name]
asked = threading.local()


def refuse(code, message):
    raise JsonRESTError(code, message)


def check_signature(response):
    """Makes the request's signature anew, as Amazon's own client would, and compares."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    parts = dict(p.strip().split("=", 1) for p in headers["authorization"].split(" ", 1)[1].split(","))
    key_id, _day, region, service, _kind = parts["Credential"].split("/")
    if key_id not in SECRET:
        refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
    body = response.raw_body if isinstance(response.raw_body, bytes) else response.raw_body.encode()
    if headers.get("x-amz-content-sha256", hashlib.sha256(body).hexdigest()) != hashlib.sha256(body).hexdigest():
        refuse("InvalidSignatureException", "The body is not the one that was signed.")
    signed = parts["SignedHeaders"].split(";")
    if not {"host", "x-amz-date", "x-amz-target"} <= set(signed):
        refuse("InvalidSignatureException", "Too few headers are signed.")
    request = AWSRequest(
        method="POST",
        url=f"http://{headers['host']}/",
        data=body,
        headers={name: headers[name] for name in signed},
    )
    request.context["timestamp"] = headers["x-amz-date"]
    auth = SigV4Auth(Credentials(key_id, SECRET[key_id]), service, region)
    expected = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    if service != "kms" or expected != parts["Signature"]:
        refuse("InvalidSignatureException", "The request signature we calculated does not match.")


def checked(action, call):
    def replaced(self):
        check_signature(self)
        key_id = self._get_param("KeyId")
        self._validate_key_id(key_id)
        key = self.kms_backend.describe_key(key_id)
        try:
            validate_policy(key, f"kms:{action}")
        except JsonRESTError:
            refuse("AccessDeniedException", f"User: arn:aws:iam::123456789012:user/test is not authorized to perform: kms:{action}")
        if action == "Sign" and not key.enabled:
            refuse("DisabledException", f"{key.arn} is disabled.")
        asked.digest = action == "Sign" and self._get_param("MessageType") == "DIGEST"
        try:
            return call(self)
        finally:
            asked.digest = False

    return replaced


plain_sign = kms_utils.ECDSAPrivateKey.sign


def sign(self, message, algorithm):
    if not asked.digest:
        return plain_sign(self, message, algorithm)
    if len(message) != 32:
        refuse("ValidationException", "Digest is invalid length for algorithm ECDSA_SHA_256.")
    return self.private_key.sign(message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))


kms_utils.ECDSAPrivateKey.sign = sign
KmsResponse.sign = checked("Sign", KmsResponse.sign)
KmsResponse.get_public_key = checked("GetPublicKey", KmsResponse.get_public_key)

if __name__ == "__main__":
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
