# A product that relays may hold: a relay (`sealift serve --relay`) is a guest of a reference value labelled `relay: …`, a workload
# one of a reference value that is not labelled so. A relay evaluates the same policy for the guests that it serves.
package sealift.release

import rego.v1

default allow := false

allow if count(deny) == 0

relay if object.get(input, ["relay"], false)

of_relays(reference) if startswith(object.get(reference, ["label"], ""), "relay: ")

# The reference values of the kind that is asked for.
references contains reference if {
	relay
	some reference in object.get(input, ["references"], [])
	of_relays(reference)
}

references contains reference if {
	not relay
	some reference in object.get(input, ["references"], [])
	not of_relays(reference)
}

known_guest if {
	input.tee.tee == "snp"
	some reference in references
	reference.measurement == input.tee.measurement
}

asked := "relay" if relay

asked := "workload's guest" if not relay

deny contains {
	"message": sprintf("this machine is no %v that the vendor released", [asked]),
	"claim": "tee.measurement",
	"expected": {reference.measurement | some reference in references},
	"found": object.get(input, ["tee", "measurement"], null),
	"fix": "launch the guest that the vendor released for this; a relay's reference value is added with `--label 'relay: NAME'`",
} if {
	not known_guest
}

signed if {
	some signer in object.get(input, ["workload", "signers"], [])
	signer in object.get(input, ["product_signers"], [])
}

deny contains {
	"message": "no signature over this manifest is by a signer of the product",
	"claim": "workload.signers",
	"expected": object.get(input, ["product_signers"], []),
	"found": object.get(input, ["workload", "signers"], []),
	"fix": "run the image as it was packed and signed for this product",
} if {
	not relay
	not signed
}

obligations := {
	"manifest_digest": input.workload.manifest_digest,
	"signers": input.product_signers,
} if {
	input.workload.manifest_digest
}
