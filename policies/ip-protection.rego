# A product at a customer's site: a known guest runs the commands that the vendor allows, on a root file system that nothing
# changes. `examples/ip-protection` runs under it.
package sealift.release

import rego.v1

default allow := false

allow if count(deny) == 0

# The image's own command, and what a customer may ask for beside it.
allowed_commands := {
	["/app/serve"],
	["/app/serve", "--check"],
}

known_guest if {
	input.tee.tee == "snp"
	some reference in input.references
	reference.measurement == input.tee.measurement
}

command := object.get(input, ["workload", "command"], [])

deny contains {
	"message": "this guest is none that the vendor released",
	"claim": "tee.measurement",
	"expected": {reference.measurement | some reference in object.get(input, ["references"], [])},
	"found": object.get(input, ["tee", "measurement"], null),
	"fix": "launch the guest that came with the product",
} if {
	not known_guest
}

deny contains {
	"message": "the vendor allows other commands only",
	"claim": "workload.command",
	"expected": allowed_commands,
	"found": command,
	"fix": "run the image without arguments of your own, or ask the vendor to allow these",
} if {
	not command in allowed_commands
}

deny contains {
	"message": "the image was packed without a bill of materials",
	"claim": "sbom",
	"expected": "one in SPDX or CycloneDX",
	"found": null,
	"fix": "pack it with `sealift pack --sbom FILE`",
} if {
	object.get(input, ["sbom"], null) == null
}

obligations := {
	"manifest_digest": input.workload.manifest_digest,
	"signers": input.product_signers,
	"command": command,
	"read_only_root": true,
}
