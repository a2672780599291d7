# An image of several partners who do not trust each other: a known guest runs the command that all agreed on, of an image that
# enough of them have signed. Each partner sets it for a product of its own, at a service of its own, with the public keys of
# all partners as the product's signers. `examples/partners` runs under it.
package sealift.release

import rego.v1

default allow := false

allow if count(deny) == 0

# So many different partners have to have signed: all three. Any two of three would be `required := 2`.
required := 3

allowed_commands := {["/app/join"], ["/app/join", "wait"]}

# Sets: a key that is named twice is one key.
partners := {signer | some signer in object.get(input, ["product_signers"], [])}

signed := {signer | some signer in object.get(input, ["workload", "signers"], [])} & partners

command := object.get(input, ["workload", "command"], [])

known_guest if {
	input.tee.tee == "snp"
	some reference in input.references
	reference.measurement == input.tee.measurement
}

deny contains {
	"message": "this guest is none that this partner approved",
	"claim": "tee.measurement",
	"expected": {reference.measurement | some reference in object.get(input, ["references"], [])},
	"found": object.get(input, ["tee", "measurement"], null),
	"fix": "launch the guest that the partners agreed on, or have this one measured and added: `sealift reference add`",
} if {
	not known_guest
}

deny contains {
	"message": sprintf("%d partners have signed this image, %d have to", [count(signed), required]),
	"claim": "workload.signers",
	"expected": partners,
	"found": signed,
	"fix": "have each partner look at the image and sign it; `sealift cosign status` shows who is missing",
} if {
	count(signed) < required
}

deny contains {
	"message": "the partners agreed on other commands only",
	"claim": "workload.command",
	"expected": allowed_commands,
	"found": command,
	"fix": "run the image without arguments of your own",
} if {
	not command in allowed_commands
}

obligations := {
	"manifest_digest": input.workload.manifest_digest,
	"signers": sort(partners),
	"signer_threshold": required,
	"command": command,
	"read_only_root": true,
}
