//! Which layers and platforms are meant.

use std::collections::BTreeSet;

use command_line::Failure;
use image_store::Platform;

/// Layers by position: from 0 at the base, negative from the top.
#[derive(Clone, Debug, Default)]
pub(crate) struct LayerSelection {
    positions: Vec<i64>,
    /// Layers that will be on top of those that are counted.
    more: usize,
}

impl LayerSelection {
    /// These positions; none means all.
    pub(crate) fn new(positions: Vec<i64>) -> Self {
        Self { positions, more: 0 }
    }

    /// The same, where so many layers are still to be added on top.
    pub(crate) fn with_more(&self, more: usize) -> Self {
        Self { positions: self.positions.clone(), more }
    }

    /// Whether nobody picked any.
    pub(crate) fn is_all(&self) -> bool {
        self.positions.is_empty()
    }

    /// The positions in an image of `count` layers.
    pub(crate) fn resolve(&self, count: usize) -> Result<BTreeSet<usize>, Failure> {
        let count = count + self.more;
        if self.positions.is_empty() {
            return Ok((0..count).collect());
        }
        let length = i64::try_from(count).unwrap_or(i64::MAX);
        self.positions
            .iter()
            .map(|&position| {
                let from_base = if position < 0 { length + position } else { position };
                usize::try_from(from_base).ok().filter(|&at| at < count).ok_or_else(|| {
                    Failure::usage(format!("there is no layer {position}: the image has {count} layers"))
                        .hint("positions count from 0 at the base; -1 is the topmost layer")
                })
            })
            .collect()
    }
}

/// `os/architecture[/variant]`.
pub(crate) fn platform_name(platform: &Platform) -> String {
    let mut name = format!("{}/{}", platform.os, platform.architecture);
    if let Some(variant) = platform.variant.as_deref().filter(|variant| !variant.is_empty()) {
        name.push('/');
        name.push_str(variant);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_positions_count_from_the_top() {
        let selection = LayerSelection::new(vec![0, -1]);
        assert_eq!(selection.resolve(4).unwrap(), BTreeSet::from([0, 3]));
    }

    #[test]
    fn a_position_outside_the_image_is_refused() {
        assert!(LayerSelection::new(vec![4]).resolve(4).is_err());
        assert!(LayerSelection::new(vec![-5]).resolve(4).is_err());
    }

    #[test]
    fn no_position_means_all_layers() {
        assert_eq!(LayerSelection::default().resolve(3).unwrap().len(), 3);
    }
}
