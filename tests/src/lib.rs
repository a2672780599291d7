//! What the end-to-end tests share: peers, the vendor's side, images, registries, trees. Real programs only, but for Trustee's key broker, which no
//! package carries.
#![expect(clippy::expect_used, reason = "a failed unwrap is a failed test")]
#![forbid(unsafe_code)]

pub mod agent;
pub mod books;
pub mod chart;
pub mod clock;
pub mod cri;
pub mod cut;
pub mod debian13;
pub mod device;
pub mod disk;
pub mod edge;
pub mod forge;
pub mod front;
pub mod guest;
pub mod image;
pub mod image_build;
pub mod meddler;
pub mod node;
pub mod openbao;
pub mod partners;
pub mod peer;
pub mod pod;
pub mod postgres;
pub mod process;
pub mod python;
pub mod registry;
pub mod relay;
pub mod running;
pub mod scene;
pub mod site;
pub mod softhsm;
pub mod tree;
pub mod trustee;
pub mod vendor;
pub mod waiting;
