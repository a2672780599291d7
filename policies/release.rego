# The release policy of products that have none of their own.
#
# Evidence, licence, registration and seats are judged by the service before this runs; a policy can only be stricter.
# Input and output are documented in README.md beside this file.
package sealift.release

import rego.v1

default allow := false

allow if {
	known_measurement
	count(deny) == 0
}

known_measurement if {
	some reference in input.references
	reference.measurement == input.tee.measurement
}

deny contains reason if {
	not known_measurement
	reason := sprintf(
		"launch measurement %v is no reference value of product %v: the guest (firmware, kernel, shim or command line) is not one that the vendor released",
		[object.get(input, ["tee", "measurement"], "(none)"), object.get(input, ["product"], "(none)")],
	)
}

deny contains "debugging is allowed on this guest, its memory is open to the host" if {
	input.tee.policy.debug
}

deny contains reason if {
	count(object.get(input, ["product_signers"], [])) > 0
	not signed
	reason := "no signature over this manifest is by a signer of the product"
}

signed if {
	some signer in input.workload.signers
	signer in input.product_signers
}

obligations := {
	"manifest_digest": input.workload.manifest_digest,
	"signers": input.product_signers,
} if {
	input.workload.manifest_digest
}
