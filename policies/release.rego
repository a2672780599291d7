# The release policy of products that have none of their own.
#
# Evidence, licence, registration, denied platforms and seats are judged by the service itself; a policy can only be stricter.
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
	measured
	some reference in input.references
	reference.measurement == input.tee.measurement
}

known_guest if {
	measured
	some reference in id_key_references
	input.tee.guest_svn >= reference.min_svn
}

# An SEV-SNP launch measurement covers all that boots. Of no other TEE can one value say that: MRTD covers the firmware of a
# TD, the measurement of an Azure machine its paravisor. What boots above is in registers, which reference values do not have.
measured if input.tee.tee == "snp"

id_key_references contains reference if {
	some reference in input.references
	signed_by(reference)
}

# A guest without an ID block reports zero.
signed_by(reference) if {
	reference.id_key_digest == input.tee.id_key_digest
	trim(reference.id_key_digest, "0") != ""
}

registers := {
	"tdx": ["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"],
	"az-snp-vtpm": ["pcrs"],
}

tee := object.get(input, ["tee", "tee"], "(none)")

product := object.get(input, ["product"], "(none)")

measurement := object.get(input, ["tee", "measurement"], "(none)")

# The values of one member of the reference values that count.
wanted(member) := {value |
	some reference in object.get(input, ["references"], [])
	value := reference[member]
}

deny contains finding if {
	tee == "sample"
	finding := {
		"message": "the client has no TEE, its evidence is a sample: nothing is proven of it",
		"claim": "tee.tee",
		"expected": "snp",
		"found": tee,
		"fix": "launch the guest in a TEE; to evaluate without one, give the product a policy that allows tee.tee `sample`: `sealift policy set`",
	}
}

deny contains finding if {
	not measured
	tee != "sample"
	names := object.get(registers, [tee], ["measurement"])
	finding := {
		"message": sprintf(
			"the default policy releases nothing to guests of TEE %v: no reference value of product %v covers all that they boot (%v)",
			[tee, product, concat(", ", names)],
		),
		"claim": "tee.tee",
		"expected": "snp",
		"found": tee,
		"fix": sprintf(
			"give the product a policy that compares %v with the vendor's own values: `sealift policy set`",
			[concat(", ", [sprintf("tee.%v", [name]) | some name in names])],
		),
	}
}

deny contains finding if {
	measured
	not known_guest
	count(id_key_references) == 0
	count(retirements) == 0
	finding := {
		"message": sprintf(
			"launch measurement %v is no reference value of product %v: the guest (firmware, kernel, shim or command line) is not one that the vendor released",
			[measurement, product],
		),
		"claim": "tee.measurement",
		"expected": wanted("measurement"),
		"found": measurement,
		"fix": "boot a guest that the vendor released, or release this one with `sealift reference add --measure`, from the files that boot",
	}
}

deny contains finding if {
	measured
	not known_guest
	count(id_key_references) > 0
	lowest := min({reference.min_svn | some reference in id_key_references})
	finding := {
		"message": sprintf(
			"guest SVN %v is below %v, the lowest that product %v accepts under ID key %v",
			[input.tee.guest_svn, lowest, product, input.tee.id_key_digest],
		),
		"claim": "tee.guest_svn",
		"expected": lowest,
		"found": input.tee.guest_svn,
		"fix": "launch a newer guest, whose ID block has this security version or a higher one",
	}
}

deny contains finding if {
	measured
	not known_guest
	some finding in retirements
}

retirements contains finding if {
	some reference in input.retired_references
	reference.measurement == input.tee.measurement
	finding := {
		"message": sprintf(
			"launch measurement %v is no reference value of product %v any more, it was retired at %v: %v",
			[reference.measurement, product, reference.retired_at, reference.retire_reason],
		),
		"claim": "tee.measurement",
		"expected": wanted("measurement"),
		"found": reference.measurement,
		"fix": "boot the guest that replaces it; `sealift reference list` shows which ones count",
	}
}

retirements contains finding if {
	some reference in input.retired_references
	signed_by(reference)
	input.tee.guest_svn >= reference.min_svn
	finding := {
		"message": sprintf(
			"ID key %v is no reference value of product %v any more, it was retired at %v: %v",
			[reference.id_key_digest, product, reference.retired_at, reference.retire_reason],
		),
		"claim": "tee.id_key_digest",
		"expected": wanted("id_key_digest"),
		"found": reference.id_key_digest,
		"fix": "launch a guest whose ID block is signed by a key that counts; `sealift reference list` shows which ones do",
	}
}

deny contains finding if {
	some claim in ["tee.policy.debug", "tee.td_attributes.debug"]
	object.get(input, split(claim, "."), false)
	finding := {
		"message": "debugging is allowed on this guest, its memory is open to the host",
		"claim": claim,
		"expected": false,
		"found": true,
		"fix": "launch the guest with debugging forbidden in its policy",
	}
}

# Who holds a relay's seats holds the keys of all images of the product: a vendor delegates by a policy that says to whom.
relay if object.get(input, ["relay"], false)

deny contains finding if {
	relay
	finding := {
		"message": sprintf("the default policy delegates nothing of product %v to relays", [product]),
		"claim": "relay",
		"expected": false,
		"found": true,
		"fix": "give the product a policy that says which relays may hold its keys, such as policies/relay.rego: `sealift policy set`",
	}
}

deny contains finding if {
	count(object.get(input, ["product_signers"], [])) > 0
	not relay
	not launched
	not signed
	finding := {
		"message": "no signature over this manifest is by a signer of the product",
		"claim": "workload.signers",
		"expected": input.product_signers,
		"found": object.get(input, ["workload", "signers"], []),
		"fix": "run the image as it was packed and signed for this product; `sealift verify` checks its signatures",
	}
}

signed if {
	some signer in input.workload.signers
	signer in input.product_signers
}

# The workload is the launch's word, not a measured program's: whoever launches the guest chooses it.
launched if object.get(input, ["stated_by"], "guest") == "launch"

approved_launch if {
	launched
	some reference in input.references
	reference.init_data == input.init_data
}

deny contains finding if {
	launched
	not approved_launch
	finding := {
		"message": sprintf(
			"the initialisation data %v are none that the vendor approved for product %v: what they say of the workload cannot be believed",
			[object.get(input, ["init_data"], "(none)"), product],
		),
		"claim": "init_data",
		"expected": wanted("init_data"),
		"found": object.get(input, ["init_data"], null),
		"fix": "launch the guest with initialisation data as the vendor wrote them, or approve these with `sealift reference add --init-data FILE`",
	}
}

deny contains finding if {
	unverified := [device.architecture |
		some device in object.get(input, ["devices"], [])
		not device.verified
	]
	count(unverified) > 0
	finding := {
		"message": sprintf(
			"the guest shows %v devices whose reports nobody has verified (%v): they may be made up",
			[count(unverified), concat(", ", unverified)],
		),
		"claim": "devices",
		"expected": [],
		"found": unverified,
		"fix": "launch the guest without evidence of devices, or give the product a policy that says which it takes unverified: `sealift policy set`",
	}
}

obligations := {
	"manifest_digest": input.workload.manifest_digest,
	"signers": input.product_signers,
} if {
	input.workload.manifest_digest
}
