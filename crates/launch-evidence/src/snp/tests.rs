//! Negative tests
