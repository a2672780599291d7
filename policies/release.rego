# The release policy of products that have none of their own.
#
# Evidence, licence, registration and seats are judged by the service before this runs; a policy can only be stricter.
# Input and output are documented in README.md beside this file.
package sealift.release

import rego.v1

default allow := false

allow if {
	known_guest
	count(deny) == 0
}

# The vendor released this guest: by its launch measurement, or by the key that signed its ID block.
known_guest if {
	some reference in input.references
	reference.measurement == input.tee.measurement
}

known_guest if {
	some reference in id_key_references
	input.tee.guest_svn >= reference.min_svn
}

id_key_references contains reference if {
	some reference in input.references
	signed_by(reference)
}

# A guest without an ID block reports zero.
signed_by(reference) if {
	reference.id_key_digest == input.tee.id_key_digest
	trim(reference.id_key_digest, "0") != ""
}

deny contains reason if {
	not known_guest
	count(id_key_references) == 0
	count(retirements) == 0
	reason := sprintf(
		"launch measurement %v is no reference value of product %v: the guest (firmware, kernel, shim or command line) is not one that the vendor released",
		[object.get(input, ["tee", "measurement"], "(none)"), object.get(input, ["product"], "(none)")],
	)
}

deny contains reason if {
	not known_guest
	count(id_key_references) > 0
	reason := sprintf(
		"guest SVN %v is below %v, the lowest that product %v accepts under ID key %v",
		[input.tee.guest_svn, min({reference.min_svn | some reference in id_key_references}), input.product, input.tee.id_key_digest],
	)
}

deny contains reason if {
	not known_guest
	some reason in retirements
}

retirements contains reason if {
	some reference in input.retired_references
	reference.measurement == input.tee.measurement
	reason := sprintf(
		"launch measurement %v is no reference value of product %v any more, it was retired at %v: %v",
		[reference.measurement, input.product, reference.retired_at, reference.retire_reason],
	)
}

retirements contains reason if {
	some reference in input.retired_references
	signed_by(reference)
	input.tee.guest_svn >= reference.min_svn
	reason := sprintf(
		"ID key %v is no reference value of product %v any more, it was retired at %v: %v",
		[reference.id_key_digest, input.product, reference.retired_at, reference.retire_reason],
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
