//! JSON that is evidence and JSON that is none.

use super::*;

#[test]
fn json_that_is_no_evidence_is_refused_by_name() {
    let edits: [fn(&mut Value); 9] = [
        |primary| primary["version"] = json!(2),
        |primary| primary["version"] = Value::Null,
        |primary| primary["hcl_report"] = json!("-"),
        |primary| primary["hcl_report"] = json!("A".repeat(30_000)),
        |primary| primary["vcek"] = json!(null),
        |primary| primary["vcek"] = json!("-----BEGIN nothing"),
        |primary| primary["tpm_quote"]["message"] = json!("0"),
        |primary| primary["tpm_quote"]["pcrs"] = json!([]),
        |primary| primary["tpm_quote"]["pcrs"][3] = json!("00"),
    ];
    for primary in edits {
        fails_only(CheckName::EvidenceForm, Case { primary: boxed(primary), ..Case::default() });
    }
}

#[test]
fn the_form_before_version_1_is_read_too() {
    let older = |primary: &mut Value| {
        let hexadecimal = |value: &Value| hex::decode(value.as_str().unwrap()).unwrap();
        let quote = &primary["tpm_quote"];
        let pcrs: Vec<Vec<u8>> = quote["pcrs"].as_array().unwrap().iter().map(hexadecimal).collect();
        let base64 = |name: &str| URL_SAFE.decode(primary[name].as_str().unwrap()).unwrap();
        let vcek = der::pem::encode_string("CERTIFICATE", der::pem::LineEnding::LF, &base64("vcek")).unwrap();
        *primary = json!({
            "report": base64("hcl_report"),
            "quote": {
                "message": hexadecimal(&quote["message"]),
                "signature": hexadecimal(&quote["signature"]),
                "pcrs": pcrs,
            },
            "vcek": vcek,
        });
        assert!(!SnpVerifier::new(TrustRoots::amd()).recognises(primary));
    };
    Case { primary: boxed(older), ..Case::default() }.verify().unwrap();
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400)) {
        let _ = Hcl::parse(&bytes);
        let _ = Attested::parse(&bytes);
        let marked = [&[0xFF, 0x54, 0x43, 0x47, 0x80, 0x18], &bytes[..]].concat();
        let _ = Attested::parse(&marked);
    }

    #[test]
    fn no_change_of_an_hcl_report_makes_the_parser_panic(
        offset in 0_usize..1500,
        byte: u8,
        len in 0_usize..1500,
    ) {
        let mut bytes = hcl(&[0; 1184], br#"{"keys": []}"#);
        if let Some(at) = bytes.get_mut(offset) {
            *at = byte;
        }
        bytes.truncate(len);
        prop_assert!(Hcl::parse(&bytes).is_err(), "there is no key in it");
    }

    #[test]
    fn no_json_makes_the_parser_panic(text in "[a-z0-9\\[\\]{}\":,]{0,40}", version in 0_u8..3) {
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        let _ = Evidence::parse(&value);
        let _ = Evidence::parse(&json!({"version": version, "hcl_report": value, "tpm_quote": value, "vcek": value}));
    }
}
