//! How denials of platforms are written, and whom they concern.

use proptest::prelude::*;

use super::*;

fn rule(text: &str) -> PlatformRule {
    text.parse().unwrap()
}

fn milan(levels: &[(TcbComponent, u8)]) -> Platform {
    Platform { product: PlatformProduct::Milan, reported_tcb: Some(levels.iter().copied().collect()), csp_id: None }
}

fn concerns(text: &str, platform: &Platform) -> usize {
    rule(text).findings("", Some(platform), "reason").len()
}

#[test]
fn what_is_written_otherwise_is_refused() {
    use ParsePlatformRuleError as Error;
    for text in ["", "milan", "Rome", "Milan ", ":snp<1", "tdx", "snp<3"] {
        assert!(matches!(text.parse::<PlatformRule>(), Err(Error::Product(_))), "{text}");
    }
    for text in ["Milan:", "Milan:snp", "Milan:snp=3", "Milan:snp<3,", "Milan:snp>3"] {
        assert!(matches!(text.parse::<PlatformRule>(), Err(Error::Bound(_))), "{text}");
    }
    for text in ["Milan:fmc<3", "TDX:snp<3", "Milan:SNP<3", "Milan:<3", "Milan: snp<3"] {
        assert!(matches!(text.parse::<PlatformRule>(), Err(Error::Component { .. })), "{text}");
    }
    for text in ["Milan:snp<", "Milan:snp<0", "Milan:snp<03", "Milan:snp<+3", "Milan:snp<256", "Milan:snp<3<4"] {
        assert!(matches!(text.parse::<PlatformRule>(), Err(Error::Level(_))), "{text}");
    }
    assert_eq!("Milan:snp<3,snp<4".parse::<PlatformRule>(), Err(Error::Twice(TcbComponent::Snp)));
    assert_eq!("0".repeat(128).parse::<PlatformRule>(), Err(Error::ZeroChip));
    assert!(matches!("A".repeat(128).parse::<PlatformRule>(), Err(Error::Chip(_))));
}

#[test]
fn every_product_of_the_verifier_can_be_denied() {
    for product in launch_evidence::Product::ALL {
        assert!(matches!(rule(product.as_str()), PlatformRule::Product(_)));
    }
}

#[test]
fn components_are_written_in_one_order() {
    assert_eq!(rule("Turin:fmc<1,microcode<2,bootloader<3").to_string(), "Turin:bootloader<3,microcode<2,fmc<1");
}

#[test]
fn a_product_is_denied_and_no_other() {
    let platform = milan(&[]);
    assert_eq!((concerns("Milan", &platform), concerns("Genoa", &platform)), (1, 0));
    assert_eq!(concerns("TDX", &Platform { product: PlatformProduct::Tdx, reported_tcb: None, csp_id: None }), 1);
}

#[test]
fn a_chip_is_denied_whatever_else_is_known_of_it() {
    let chip = "ab".repeat(64);
    assert_eq!(rule(&chip).findings(&chip, None, "reason").len(), 1);
    assert!(rule(&chip).findings(&"ac".repeat(64), None, "reason").is_empty());
}

#[test]
fn a_tcb_is_denied_where_any_component_is_below() {
    let platform = milan(&[(TcbComponent::Snp, 22), (TcbComponent::Microcode, 209)]);
    assert_eq!(concerns("Milan:snp<22", &platform), 0, "not below");
    assert_eq!(concerns("Milan:snp<23", &platform), 1);
    assert_eq!(concerns("Milan:snp<22,microcode<210", &platform), 1);
    assert_eq!(concerns("Milan:snp<23,microcode<210", &platform), 2);
    assert_eq!(concerns("Genoa:snp<23", &platform), 0, "levels of different products do not compare");
    assert_eq!(concerns("Milan:tee<9", &platform), 0, "what was not reported is not below");
    assert!(rule("Milan:snp<23").findings("", None, "reason").is_empty());
    let finding = rule("Milan:snp<23").findings("", Some(&platform), "leaks").remove(0);
    assert_eq!(finding.claim.as_deref(), Some("platform.reported_tcb.snp"));
    assert_eq!((finding.expected, finding.found), (Some(json!(23)), Some(json!(22))));
    assert!(finding.message.ends_with(": leaks"), "{}", finding.message);
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        product in prop::sample::select(vec!["Milan", "Genoa", "Turin"]),
        levels in prop::collection::btree_map(0_usize..5, 1_u8..=255, 1..5),
    ) {
        let product = product.parse().map(|rule| match rule {
            PlatformRule::Product(product) => product,
            _ => unreachable!("a product's name is a product"),
        }).unwrap();
        let below: TcbLevels = levels
            .into_iter()
            .map(|(index, level)| (TcbComponent::ALL[index], level))
            .filter(|(component, _)| product == PlatformProduct::Turin || *component != TcbComponent::Fmc)
            .collect();
        prop_assume!(!below.is_empty());
        let rule = PlatformRule::Tcb { product, below };
        prop_assert_eq!(rule.to_string().parse::<PlatformRule>(), Ok(rule));
    }

    #[test]
    fn chips_are_read_back(bytes in prop::array::uniform32(1_u8..)) {
        let text = hex::encode([bytes, bytes].concat());
        prop_assert_eq!(text.parse::<PlatformRule>().unwrap().to_string(), text);
    }

    /// Whatever is read is written in one way, which is read as the same.
    #[test]
    fn nothing_panics_and_there_is_one_spelling(text in "(Milan|Turin|TDX|[a-f0-9]{0,128})(:?[a-z<,0-9+ ]{0,40}|:(snp<[0-9]{0,4},?){0,3})") {
        if let Ok(rule) = text.parse::<PlatformRule>() {
            prop_assert_eq!(rule.to_string().parse::<PlatformRule>(), Ok(rule));
        }
    }
}

#[test]
fn a_provider_is_denied_by_its_name_alone() {
    let mut platform = milan(&[]);
    platform.csp_id = Some("provider-a".to_owned());
    assert_eq!(concerns("csp:provider-a", &platform), 1);
    assert_eq!(concerns("csp:provider-b", &platform), 0);
    assert_eq!(concerns("csp:provider-a", &milan(&[])), 0);
    for wrong in ["csp:", "csp:two words", "csp:\u{e9}"] {
        assert_eq!(wrong.parse::<PlatformRule>(), Err(ParsePlatformRuleError::Provider), "{wrong}");
    }
    assert_eq!("csp:provider-a".parse::<PlatformRule>().unwrap().to_string(), "csp:provider-a");
}
