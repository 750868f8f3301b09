//! Specifications, checkouts, evaluators and the registration of builds.
