# One product on a customer's own machines and, for hours, in a cloud. A licence says by its feature `site` where it holds, the
# label of a reference value says which site it is of (`cloud: …`). Who issues licences for the cloud is a program, so what it
# may ask for has bounds here. `examples/cloud-burst` runs under it.
package sealift.release

import rego.v1

default allow := false

allow if count(deny) == 0

site_names := {"on-premises", "cloud"}

# CPU lines that were tried, each with the lowest SNP firmware that counts.
lowest_firmware := {"Milan": 24, "Genoa": 23}

# Azure measures its own paravisor at launch, and into registers of the vTPM what boots above it. These are no real values: put
# those of your own machine image here.
azure_releases := [{"registers": [
	{"number": 4, "value": "4444444444444444444444444444444444444444444444444444444444444444"},
	{"number": 9, "value": "9999999999999999999999999999999999999999999999999999999999999999"},
	{"number": 11, "value": "1111111111111111111111111111111111111111111111111111111111111111"},
]}]

# A burst is over after a day, whoever asked for more.
burst_seconds := 86400

burst_seats := 50

sites contains site if {
	input.tee.tee == "snp"
	some reference in input.references
	reference.measurement == input.tee.measurement
	some site in site_names
	startswith(reference.label, concat("", [site, ":"]))
}

sites contains "cloud" if {
	input.tee.tee == "az-snp-vtpm"
	some release in azure_releases
	every register in release.registers {
		input.tee.pcrs[register.number] == register.value
	}
}

licensed_site := object.get(input, ["license", "features", "site"], "(none)")

processor := object.get(input, ["platform", "product"], "(none)")

firmware := object.get(input, ["platform", "reported_tcb", "snp"], 0)

deny contains {
	"message": "this guest is none that the vendor released for any site",
	"claim": "tee",
	"expected": {reference.measurement | some reference in object.get(input, ["references"], [])},
	"found": object.get(input, ["tee", "measurement"], object.get(input, ["tee", "pcrs"], null)),
	"fix": "launch the guest that came with the product",
} if {
	count(sites) == 0
}

deny contains {
	"message": sprintf("the licence is for site %v, this guest is of %v", [licensed_site, concat(", ", sites)]),
	"claim": "license.features.site",
	"expected": sites,
	"found": licensed_site,
	"fix": "start it with the licence of its site: `sealift license issue --feature site=NAME`",
} if {
	count(sites) > 0
	not licensed_site in sites
}

deny contains {
	"message": sprintf("the product was not released for processors of line %v", [processor]),
	"claim": "platform.product",
	"expected": object.keys(lowest_firmware),
	"found": processor,
	"fix": "start it on one of the lines that the vendor has tried",
} if {
	not lowest_firmware[processor]
}

deny contains {
	"message": sprintf("SNP firmware %v of this %v is older than %v", [firmware, processor, lowest_firmware[processor]]),
	"claim": "platform.reported_tcb.snp",
	"expected": lowest_firmware[processor],
	"found": firmware,
	"fix": "update the SNP firmware of the host, or choose another host",
} if {
	firmware < lowest_firmware[processor]
}

deny contains {
	"message": sprintf("a burst is licensed for %v hours at most", [burst_seconds / 3600]),
	"claim": "license.exp",
	"expected": input.license.nbf + burst_seconds,
	"found": input.license.exp,
	"fix": "issue a licence with a nearer end: `sealift license issue --until +8h`",
} if {
	licensed_site == "cloud"
	input.license.exp - input.license.nbf > burst_seconds
}

deny contains {
	"message": sprintf("a burst is licensed for %v seats at most", [burst_seats]),
	"claim": "license.seats",
	"expected": burst_seats,
	"found": input.license.seats,
	"fix": "issue a licence with fewer seats",
} if {
	licensed_site == "cloud"
	input.license.seats > burst_seats
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

# What GPUs a cloud adds is not verified by anybody; a product that computes on them decides here which ones it takes.
deny contains {
	"message": "the guest shows devices that nobody has verified",
	"claim": "devices",
	"expected": [],
	"found": unverified,
	"fix": "start it on machines without GPUs",
} if {
	unverified := [device.architecture | some device in object.get(input, ["devices"], []); not device.verified]
	count(unverified) > 0
}

obligations := {
	"manifest_digest": input.workload.manifest_digest,
	"signers": input.product_signers,
	"read_only_root": true,
}
