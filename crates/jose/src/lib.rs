//! JSON signatures, encryption and keys (RFC 7515, 7516, 7517) in the few forms that the product speaks.
