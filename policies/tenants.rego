# One tenant of a vendor's: its own guests run what its own key signed, under licences that it issued. The first rule says whose
# policy this is; each tenant's service has a copy with its own name. `examples/tenants` runs under it.
package sealift.release

import rego.v1

tenant := "tenant-a"

default allow := false

allow if count(deny) == 0

known_guest if {
	input.tee.tee == "snp"
	some reference in input.references
	reference.measurement == input.tee.measurement
}

licensed_tenant := object.get(input, ["license", "features", "tenant"], "(none)")

signers := {signer | some signer in object.get(input, ["workload", "signers"], [])}

own_signers := {signer | some signer in object.get(input, ["product_signers"], [])}

# An image that another tenant's key signed, too, is one that passed through two hands.
strangers := signers - own_signers

deny contains {
	"message": "this guest is none that the tenant released",
	"claim": "tee.measurement",
	"expected": {reference.measurement | some reference in object.get(input, ["references"], [])},
	"found": object.get(input, ["tee", "measurement"], null),
	"fix": "launch the guest that came with the product",
} if {
	not known_guest
}

deny contains {
	"message": sprintf("the licence is of %v, not of %v", [licensed_tenant, tenant]),
	"claim": "license.features.tenant",
	"expected": tenant,
	"found": licensed_tenant,
	"fix": "issue it with `sealift license issue --feature tenant=NAME`",
} if {
	licensed_tenant != tenant
}

deny contains {
	"message": "no signature over this manifest is by the tenant's key",
	"claim": "workload.signers",
	"expected": own_signers,
	"found": signers,
	"fix": "give the image to the tenant by `sealift rewrap --tenant`, which signs with its key",
} if {
	count(signers & own_signers) == 0
}

deny contains {
	"message": "keys that are not the tenant's signed this manifest, too",
	"claim": "workload.signers",
	"expected": own_signers,
	"found": signers,
	"fix": "run the image that was signed for this tenant alone",
} if {
	count(signers & own_signers) > 0
	count(strangers) > 0
}

obligations := {
	"manifest_digest": input.workload.manifest_digest,
	"signers": input.product_signers,
	"read_only_root": true,
}
