"""Makes the keys and messages beside it with other people's code: `cryptography` and `jwcrypto`.

Run once, by hand, in this folder: `pip install jwcrypto && python3 make.py`. Keys and messages are
for tests only and protect nothing.
"""

import base64
import json

from cryptography.hazmat.primitives import hashes, serialization as ser
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwcrypto import jwe, jwk

PAYLOAD = b"a secret for the recipient"


def pem(key, form):
    return key.private_bytes(ser.Encoding.PEM, form, ser.NoEncryption()).decode()


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


keys = {"rsa": rsa.generate_private_key(65537, 2048)}
for name, curve in [("p256", ec.SECP256R1()), ("p384", ec.SECP384R1()), ("p521", ec.SECP521R1())]:
    keys[name] = ec.generate_private_key(curve)

vectors = {"payload": PAYLOAD.decode(), "keys": {}, "messages": []}
jwks = {}
for name, key in keys.items():
    public = key.public_key().public_bytes(ser.Encoding.PEM, ser.PublicFormat.SubjectPublicKeyInfo)
    jwks[name] = jwk.JWK.from_pem(public)
    vectors["keys"][name] = {
        "pkcs8": pem(key, ser.PrivateFormat.PKCS8),
        "traditional": pem(key, ser.PrivateFormat.TraditionalOpenSSL),
        "encrypted": key.private_bytes(
            ser.Encoding.PEM, ser.PrivateFormat.PKCS8, ser.BestAvailableEncryption(b"x")
        ).decode(),
        "public": public.decode(),
        "jwk": json.loads(jwks[name].export_public()),
        "thumbprint": jwks[name].thumbprint(),
    }


def message(key, alg, enc, compact=False):
    made = jwe.JWE(PAYLOAD, json.dumps({"alg": alg, "enc": enc}))
    made.add_recipient(jwks[key])
    text = made.serialize(compact)
    form = "compact" if compact else "flattened"
    vectors["messages"].append({"key": key, "name": f"{alg} {enc} {form}", "text": text})


jwe.default_allowed_algs.append("RSA-OAEP")
for alg in ["RSA-OAEP", "RSA-OAEP-256"]:
    message("rsa", alg, "A256GCM")
message("rsa", "RSA-OAEP", "A128GCM", compact=True)
for key in ["p256", "p384", "p521"]:
    for alg in ["ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW"]:
        message(key, alg, "A256GCM")
message("p256", "ECDH-ES", "A128GCM", compact=True)
message("p256", "ECDH-ES+A256KW", "A192GCM")

several = jwe.JWE(PAYLOAD, json.dumps({"enc": "A256GCM"}), aad=b"bound to this")
several.add_recipient(jwks["rsa"], json.dumps({"alg": "RSA-OAEP"}))
several.add_recipient(jwks["p256"], json.dumps({"alg": "ECDH-ES+A256KW"}))
for key in ["rsa", "p256"]:
    vectors["messages"].append({"key": key, "name": f"general {key}", "text": several.serialize()})

signer = keys["p256"]
signed = b64(b'{"alg":"ES256","typ":"test+jwt"}') + "." + b64(b'{"n":1}')
r, s = decode_dss_signature(signer.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
vectors["jws"] = signed + "." + b64(r.to_bytes(32, "big") + s.to_bytes(32, "big"))
der = signer.sign(b"a message", ec.ECDSA(hashes.SHA256()))
vectors["der"] = base64.b64encode(der).decode()

with open("vectors.json", "w") as file:
    json.dump(vectors, file, indent=1)
    file.write("\n")
