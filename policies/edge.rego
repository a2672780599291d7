# A product at sites with weak connectivity: a known guest may start and run without the service, for as long as this policy
# lets it. `examples/edge` runs under it.
package sealift.release

import rego.v1

default allow := false

allow if count(deny) == 0

# The longest time without the service, in seconds: three days; for a site that has been visited by nobody for long, say less.
longest_offline := 259200

# A guest whose host can turn its clock back and put an old state in the place of a newer one starts without the service for as
# long as the host likes. Where that matters, let it do so on machines only that the licence names.
offline_needs_chips := object.get(input, ["license", "features", "offline"], "any chip") == "named chips"

known_guest if {
	input.tee.tee == "snp"
	some reference in input.references
	reference.measurement == input.tee.measurement
}

asks_offline := object.get(input, ["offline"], false)

chips := object.get(input, ["license", "platforms"], [])

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
	"message": "this licence lets guests keep their keys on named chips only, and names none",
	"claim": "license.platforms",
	"expected": "at least one chip id",
	"found": chips,
	"fix": "bind the licence to the site's machines: `sealift license transfer ID --platform CHIP`",
} if {
	asks_offline
	offline_needs_chips
	count(chips) == 0
}

deny contains {
	"message": "no signature over this manifest is by a signer of the product",
	"claim": "workload.signers",
	"expected": object.get(input, ["product_signers"], []),
	"found": object.get(input, ["workload", "signers"], []),
	"fix": "run the image as it was packed and signed for this product",
} if {
	not signed
}

signed if {
	some signer in input.workload.signers
	signer in input.product_signers
}

obligations := {
	"manifest_digest": input.workload.manifest_digest,
	"signers": input.product_signers,
	"read_only_root": true,
	"offline_seconds": longest_offline,
}
