//! Minimum TCBs as people write them.

use launch_evidence::MinimumTcb;
use launch_evidence::snp::Product;

/// Parses `PRODUCT:COMPONENT=N[,COMPONENT=N…]`.
pub(crate) fn parse_minimum(text: &str) -> Result<(Product, MinimumTcb), String> {
    const FORM: &str = "write it like `Milan:snp=22,microcode=211`";
    let (name, levels) = text.split_once(':').ok_or(FORM)?;
    let product = product(name)?;
    let mut minimum = MinimumTcb::default();
    for level in levels.split(',') {
        let (component, number) = level.split_once('=').ok_or(FORM)?;
        let number: u8 = number.parse().map_err(|_| format!("`{number}` is no number from 0 to 255"))?;
        let place = match component {
            "bootloader" => &mut minimum.bootloader,
            "tee" => &mut minimum.tee,
            "snp" => &mut minimum.snp,
            "microcode" => &mut minimum.microcode,
            "fmc" => &mut minimum.fmc,
            other => {
                return Err(format!("`{other}` is no component: bootloader, tee, snp, microcode, fmc are"));
            }
        };
        *place = number;
    }
    Ok((product, minimum))
}

/// The product of a name, as certificates spell it.
pub(crate) fn product(name: &str) -> Result<Product, String> {
    let known = Product::ALL.into_iter().find(|product| product.as_str() == name);
    known.ok_or_else(|| format!("`{name}` is no product: Milan, Genoa, Turin are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_set_by_name() {
        let (product, minimum) = parse_minimum("Milan:snp=22,microcode=211").unwrap();
        assert_eq!(product, Product::Milan);
        assert_eq!(minimum, MinimumTcb { snp: 22, microcode: 211, ..MinimumTcb::default() });
    }

    #[test]
    fn what_is_no_minimum_is_refused() {
        for wrong in ["", "Milan", "Milan:", "Rome:snp=1", "Milan:snp", "Milan:snp=256", "Milan:uv=1", "Milan:snp=1,"] {
            assert!(parse_minimum(wrong).is_err(), "{wrong}");
        }
    }
}
